//! `meridian login`

use std::io::Read as _;

use clap::Args;
use serde_json::json;

use crate::client::Client;
use crate::failure::Failure;
use crate::limits::TOKEN_BYTES_MAX;
use crate::print;
use crate::profile::{Profile, Server, remember};

/// Remember a server and a control token, after trying them. `--url` is needed.
#[derive(Args)]
pub struct Login {
    /// Read the token from standard input.
    #[arg(long)]
    token_stdin: bool,
}

impl Login {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let url = server.url().ok_or_else(|| Failure::Usage("--url is needed".to_owned()))?;
        let token = if self.token_stdin {
            let mut text = String::new();
            let read = std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text);
            read.map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
            text.trim().to_owned()
        } else {
            server.token().map(str::to_owned).unwrap_or_default()
        };
        if token.is_empty() {
            return Err(Failure::Usage(
                "a token is needed: --token-stdin, MERIDIAN_TOKEN or --token".to_owned(),
            ));
        }
        let profile = Profile { url: url.trim_end_matches('/').to_owned(), token };
        let who = Client::new(&profile)?.get("/whoami")?.body;
        let path = remember(profile)?;
        if json {
            print::json(&json!({ "url": url, "operator": who, "remembered_in": path }));
        } else {
            print::line(&format!(
                "logged in to {url} as {}; remembered in {}",
                print::cell(&who, "name"),
                path.display()
            ));
        }
        Ok(())
    }
}
