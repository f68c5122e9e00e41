//! `meridian rules …`

pub mod explain;
mod offline;
mod release;
mod show;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use meridian_engine::ruleset::Target;
use meridian_wire::authored::{Compiled, File, compile, target_of};
use meridian_wire::document::Document;
use meridian_wire::sync::parse_target;

use crate::failure::Failure;
use crate::files;
use crate::print;
use crate::profile::Server;

#[derive(Subcommand)]
pub enum Rules {
    /// Check documents. Needs no server.
    Validate {
        #[command(flatten)]
        set: Set,
    },
    /// Run the tests that stand beside the rules. Needs no server.
    Test {
        #[command(flatten)]
        set: Set,
        #[command(flatten)]
        regions: Regions,
    },
    /// What would change: against the newest release, or against other files.
    Diff {
        #[command(flatten)]
        set: Set,
        /// Folder or file to compare with, in the place of the newest release. Needs no server.
        #[arg(long, value_name = "PATH")]
        against: Option<PathBuf>,
    },
    /// Release documents, if nobody else has in the meantime.
    Push(release::Push),
    /// Release the documents of an earlier release again.
    Rollback(release::Rollback),
    /// Releases, the newest first.
    List(release::List),
    /// Why a request was, or would be, decided as it is.
    Explain(Box<explain::Explain>),
}

/// A set of documents.
#[derive(Args)]
pub struct Set {
    /// Folder or file of documents.
    path: PathBuf,
    /// `platform` or `tenant:SLUG`. Without it, what a Tenant or Region document among them says.
    #[arg(long, value_name = "TARGET", value_parser = target)]
    target: Option<Target>,
}

/// Where the regions come from that tests need.
#[derive(Args)]
pub struct Regions {
    /// Folder or file of the platform's documents; the folder `platform` beside the rules where it is not given.
    #[arg(long, value_name = "PATH")]
    platform: Option<PathBuf>,
}

impl Rules {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        match self {
            Self::Validate { set } => offline::validate(&set, json),
            Self::Test { set, regions } => offline::test(&set, &regions, json),
            Self::Diff { set, against: Some(against) } => offline::diff(&set, &against, json),
            Self::Diff { set, against: None } => release::diff(&set, server, json),
            Self::Push(push) => push.run(server, json),
            Self::Rollback(rollback) => rollback.run(server, json),
            Self::List(list) => list.run(server, json),
            Self::Explain(explain) => explain.run(server, json),
        }
    }
}

impl Set {
    /// The files and the target that they are for.
    fn read(&self) -> Result<(Vec<File>, Target), Failure> {
        let files = files::read(&self.path)?;
        let target = self.target.clone().or_else(|| target_of(&files)).ok_or_else(|| {
            Failure::Usage(
                "no Tenant or Region document says what these are for: give --target platform or --target tenant:SLUG"
                    .to_owned(),
            )
        })?;
        Ok((files, target))
    }

    /// Checked documents, by what the files say alone.
    fn compile(&self) -> Result<Checked, Failure> {
        let (files, target) = self.read()?;
        let compiled = checked(&target, &files, None)?;
        Ok(Checked { target, compiled })
    }
}

/// Documents that hold together.
struct Checked {
    target: Target,
    compiled: Compiled,
}

fn checked(target: &Target, files: &[File], generated: Option<&[Document]>) -> Result<Compiled, Failure> {
    compile(target, files, generated)
        .map_err(|invalid| Failure::invalid(print::invalid(files, &invalid), &invalid))
}

pub fn target(text: &str) -> Result<Target, String> {
    parse_target(text).map_err(|error| error.to_string())
}
