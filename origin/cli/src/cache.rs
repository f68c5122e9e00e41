//! `meridian cache …`

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::print;
use crate::profile::Server;

#[derive(Subcommand)]
pub enum Cache {
    /// Take what edges have stored until now as stale, in all regions.
    Purge(Purge),
}

/// What to purge: URLs, tags of a tenant, everything of a tenant, or everything of all.
#[derive(Args)]
#[group(skip)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["urls", "tag", "tenant", "all"]))]
pub struct Purge {
    /// Absolute URLs, each with its query. The hostname says whose it is.
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// A tag of the tenant; may be given several times.
    #[arg(long, value_name = "TAG", requires = "tenant")]
    tag: Vec<String>,
    /// Slug of the tenant; without tags and URLs, everything of it.
    #[arg(long, value_name = "SLUG")]
    tenant: Option<String>,
    /// Everything of all tenants; the token must have the scope `*`.
    #[arg(long, conflicts_with_all = ["urls", "tag", "tenant"])]
    all: bool,
    /// Serve it while it is fetched anew or the origin fails, as far as policy and response allow.
    #[arg(long)]
    soft: bool,
}

impl Cache {
    pub fn run(self, server: &Server, json: bool) -> Result<(), Failure> {
        let Self::Purge(purge) = self;
        let answer = server.client()?.post("/purges", &purge.body())?.body;
        let regions = answer.get("regions").and_then(Value::as_object).cloned().unwrap_or_default();
        let missed: Vec<&str> =
            regions.iter().filter(|(_, done)| *done != "purged").map(|(region, _)| region.as_str()).collect();
        if !missed.is_empty() {
            let what = format!(
                "not purged in {}, which could not be reached: purge once more when it is back",
                missed.join(", ")
            );
            return Err(Failure::Failed { what, json: answer });
        }
        if json {
            print::json(&answer);
        } else {
            let names: Vec<&str> = regions.keys().map(String::as_str).collect();
            print::line(&format!("purged in {}", names.join(", ")));
        }
        Ok(())
    }
}

impl Purge {
    /// As the control API takes it.
    fn body(&self) -> Value {
        let mut body = json!({ "soft": self.soft });
        if self.all {
            body["everything"] = json!(true);
            return body;
        }
        let whole = self.tag.is_empty() && self.urls.is_empty();
        body["tags"] = if whole { json!(["*"]) } else { json!(self.tag) };
        body["urls"] = json!(self.urls);
        if let Some(tenant) = &self.tenant {
            body["tenant"] = json!(tenant);
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        purge: Purge,
    }

    #[test]
    fn what_is_said_is_what_is_asked() {
        let check = |words: &str, expect: Option<Value>| {
            let words = std::iter::once("purge").chain(words.split_ascii_whitespace());
            let got = Arguments::try_parse_from(words.clone()).ok().map(|got| got.purge.body());
            assert_eq!(got, expect, "{:?}", words.collect::<Vec<_>>());
        };
        check(
            "--tenant acme --tag a --tag b",
            Some(json!({"tenant": "acme", "tags": ["a", "b"], "urls": [], "soft": false})),
        );
        check(
            "--tenant acme --soft",
            Some(json!({"tenant": "acme", "tags": ["*"], "urls": [], "soft": true})),
        );
        check("https://a.test/b", Some(json!({"tags": [], "urls": ["https://a.test/b"], "soft": false})));
        check("--all", Some(json!({"everything": true, "soft": false})));
        for wrong in ["", "--soft", "--tag a", "--all --tenant acme", "--all https://a.test/"] {
            check(wrong, None);
        }
    }
}
