//! `cargo xtask setup`: brings what the project needs and the machine lacks.

pub mod cache;
pub mod caddy;
pub mod cargo_tools;
pub mod debian;
pub mod envoy;
pub mod npm;
pub mod postgres;
pub mod wasm;

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::progress::say;

/// What set-up can bring.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub enum Piece {
    /// Rust's standard library for wasm32-unknown-unknown and wasm32-wasip2.
    Wasm,
    /// workerd, wasm-opt, esbuild and the benchmark's JavaScript peers, from npm.
    Npm,
    /// PostgreSQL's server programs.
    Postgres,
    /// Caddy, which the tests put in front of the edges.
    Caddy,
    /// wasm-bindgen, built by cargo.
    WasmBindgen,
    /// worker-build, built by cargo.
    WorkerBuild,
}

/// Arguments of `cargo xtask setup`.
#[derive(Args, Clone, Debug, Default)]
pub struct Setup {
    /// Bring only these pieces.
    #[arg(long, value_enum)]
    only: Vec<Piece>,
    /// Print where the pieces are as JSON.
    #[arg(long)]
    json: bool,
}

impl Setup {
    /// Brings the pieces and says where each is.
    ///
    /// # Errors
    /// When a piece can't be brought.
    pub fn run(&self) -> Result<()> {
        say("Setting up");
        let mut found = BTreeMap::new();
        for piece in Piece::value_variants() {
            if self.only.is_empty() || self.only.contains(piece) {
                found.insert(*piece, bring(*piece)?);
            }
        }
        let name = |piece: &Piece| {
            piece.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
        };
        if self.json {
            let all: serde_json::Map<String, Value> =
                found.iter().map(|(piece, value)| (name(piece), value.clone())).collect();
            println!("{}", Value::Object(all));
        } else {
            for (piece, value) in &found {
                say(&format!("  ✓ {}: {}", name(piece), describe(value)));
            }
        }
        Ok(())
    }
}

/// Brings one piece and describes it.
fn bring(piece: Piece) -> Result<Value> {
    Ok(match piece {
        Piece::Wasm => {
            let mut toolchains = serde_json::Map::new();
            for target in [wasm::UNKNOWN, wasm::WASIP2] {
                let toolchain = wasm::toolchain(target)?;
                let place =
                    toolchain.folder.map_or("active toolchain".into(), |folder| folder.display().to_string());
                toolchains.insert(target.to_owned(), place.into());
            }
            Value::Object(toolchains)
        }
        Piece::Npm => {
            let tools = npm::tools()?;
            json!({"workerd": tools.workerd, "wasm-opt": tools.wasm_opt, "esbuild": tools.esbuild})
        }
        Piece::Postgres => {
            let programs = postgres::programs()?;
            json!({"folder": programs.folder, "major": programs.major})
        }
        Piece::Caddy => json!(caddy::program()?),
        Piece::WasmBindgen => json!(cargo_tools::wasm_bindgen()?),
        Piece::WorkerBuild => json!(cargo_tools::worker_build()?),
    })
}

fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name} {}", describe(value)));
            fields.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
