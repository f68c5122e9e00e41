//! `meridian`: the command line of platform engineers and operators.
//!
//! It speaks to servers over the control API only. What can be told without a server (validate, test, diff against
//! files, explain a described request) is told without one. Nothing that it prints ever holds a token or a key, but for
//! `token mint`, whose purpose that is.
//!
//! Exit codes: 0 done; 1 refused, or a check failed; 2 wrong usage; 3 the server is away or failed.
#![forbid(unsafe_code)]

mod cache;
mod client;
mod domains;
mod experiments;
mod failure;
mod files;
mod limits;
mod login;
mod logs;
mod operations;
mod print;
mod profile;
mod rules;
mod tenants;
mod token;
mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::profile::Server;

/// Rules, tenants and operations of a Meridian platform.
#[derive(Parser)]
#[command(
    name = "meridian",
    version,
    about,
    after_help = "Exit codes: 0 done; 1 refused, or a check failed; 2 wrong usage; 3 the server is away or failed."
)]
struct Arguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Remember a server and a control token.
    Login(login::Login),
    /// Check, test, compare, release and explain rules.
    #[command(subcommand)]
    Rules(rules::Rules),
    /// Why a request was decided as it was; the same as `rules explain DECISION`.
    Explain {
        /// Id of a decision, from the header Meridian-Decision of a reply.
        decision: String,
    },
    /// What edges decided lately, the most frequent kinds first.
    Top(top::Top),
    /// Decisions of edges as they arrive.
    Logs(logs::Logs),
    /// Tenants.
    #[command(subcommand)]
    Tenant(tenants::Tenants),
    /// Hostnames of tenants.
    #[command(subcommand)]
    Domain(domains::Domains),
    /// What edges have stored.
    #[command(subcommand)]
    Cache(cache::Cache),
    /// Results of experiments.
    #[command(subcommand)]
    Experiments(experiments::Experiments),
    /// Tokens of end users, for development.
    #[command(subcommand)]
    Token(token::Token),
    /// Replication between regions.
    #[command(subcommand)]
    Replication(operations::Replication),
    /// Conflicts that replication resolved.
    #[command(subcommand)]
    Conflicts(operations::Conflicts),
}

fn main() -> ExitCode {
    let Arguments { json, server, command } = Arguments::parse();
    let done = match command {
        Command::Login(command) => command.run(&server, json),
        Command::Rules(command) => command.run(&server, json),
        Command::Explain { decision } => rules::explain::made(&decision, &server, json),
        Command::Top(command) => command.run(&server, json),
        Command::Logs(command) => command.run(&server, json),
        Command::Tenant(command) => command.run(&server, json),
        Command::Domain(command) => command.run(&server, json),
        Command::Cache(command) => command.run(&server, json),
        Command::Experiments(command) => command.run(&server, json),
        Command::Token(command) => command.run(json),
        Command::Replication(command) => command.run(&server, json),
        Command::Conflicts(command) => command.run(&server, json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure, json),
    }
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    if json && let Some(value) = failure.json() {
        print::json(&value);
    } else {
        print::error(&failure.to_string());
    }
    ExitCode::from(failure.code())
}
