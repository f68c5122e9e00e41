//! The demo tenants, their rules and their orders: all through the real command line and the real edges.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::http::Request;
use super::keys::Keys;
use super::layout::{Layout, REGIONS};
use super::orders;
use super::up_file::Tokens;
use crate::paths;
use crate::progress::Step;

/// Host of the demo tenant.
const HOST: &str = "acme.localhost";
/// Orders that one batch carries.
const BATCH: usize = 50;

/// A demo tenant.
struct Tenant {
    slug: &'static str,
    name: &'static str,
    host: &'static str,
    allowed_regions: &'static [&'static str],
}

/// `globex` may not leave two regions: the example of residency.
const TENANTS: [Tenant; 2] = [
    Tenant {
        slug: "acme",
        name: "Acme Retail",
        host: HOST,
        allowed_regions: &["us-east-1", "eu-west-1", "ap-southeast-1"],
    },
    Tenant {
        slug: "globex",
        name: "Globex Industries",
        host: "globex.localhost",
        allowed_regions: &["us-east-1", "eu-west-1"],
    },
];

/// The `meridian` command, speaking to the first origin.
struct Cli<'a> {
    program: &'a Path,
    url: String,
    token: &'a str,
}

impl Cli<'_> {
    fn run(&self, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(self.program)
            .args(arguments)
            .arg("--json")
            .env("MERIDIAN_URL", &self.url)
            .env("MERIDIAN_TOKEN", self.token)
            .current_dir(paths::root())
            .output()
            .with_context(|| format!("could not run {}", self.program.display()))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("meridian {} ended with {}:\n{out}{err}", arguments.join(" "), output.status);
        }
        serde_json::from_str(&out).with_context(|| format!("meridian {} printed: {out}", arguments.join(" ")))
    }

    /// Whether a list that the command prints has an entry with this value of `field`.
    fn lists(&self, arguments: &[&str], field: &str, value: &str) -> Result<bool> {
        let answer = self.run(arguments)?;
        let lists = answer.as_array().into_iter().chain(
            answer.as_object().into_iter().flat_map(|object| object.values().filter_map(Value::as_array)),
        );
        Ok(lists.flatten().any(|entry| entry[field] == value))
    }
}

/// Makes tenants and domains where they are missing, and pushes the demo's rules.
///
/// # Errors
/// When the control API refuses something.
pub fn rules(cli: &Path, layout: &Layout, keys: &Keys) -> Result<()> {
    let mut step = Step::start("demo tenants and rules");
    let cli = Cli { program: cli, url: layout.origin_url(REGIONS[0]), token: &keys.control_token };
    for tenant in &TENANTS {
        step.tick(tenant.slug);
        if !cli.lists(&["tenant", "list"], "slug", tenant.slug)? {
            let regions = tenant.allowed_regions.join(",");
            let create =
                ["tenant", "create", tenant.slug, "--name", tenant.name, "--home-region", "us-east-1"];
            cli.run(&[&create[..], &["--allowed-regions", &regions]].concat())?;
        }
        if !cli.lists(&["domain", "list"], "hostname", tenant.host)? {
            cli.run(&["domain", "add", tenant.host, "--tenant", tenant.slug])?;
        }
    }
    declare_orders(layout, keys)?;
    for (folder, target) in [("platform", "platform"), ("acme", "tenant:acme"), ("globex", "tenant:globex")] {
        step.tick(target);
        // What was pushed once is the user's: neither the rules nor the copy to edit are touched again. Only the regions
        // follow the ports of this start.
        if folder != "platform" && cli.lists(&["rules", "list", "--target", target], "kind", "push")? {
            continue;
        }
        let copy = filled_copy(layout, keys, folder)?;
        cli.run(&["rules", "push", &copy.to_string_lossy(), "--target", target])?;
    }
    step.done("");
    Ok(())
}

/// Declares the collection of orders for both tenants, unless it is declared like that already.
fn declare_orders(layout: &Layout, keys: &Keys) -> Result<()> {
    let path = paths::root().join("infra/demo/collections/orders.json");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let wanted: Value = serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    for tenant in &TENANTS {
        let url = format!("{}/control/v1/tenants/{}/collections", layout.origin_url(REGIONS[0]), tenant.slug);
        let declared = ask(&Request::get(&url), &keys.control_token)?;
        if !declared["collections"].as_array().is_some_and(|all| all.contains(&wanted)) {
            ask(&Request::post(&url, &wanted), &keys.control_token)?;
        }
    }
    Ok(())
}

/// Copies a folder of demo rules with the keys and addresses of this stack filled in.
fn filled_copy(layout: &Layout, keys: &Keys, folder: &str) -> Result<PathBuf> {
    let source = paths::root().join("infra/demo").join(folder);
    let copy = layout.data.join("demo").join(folder);
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| format!("could not remove {}", copy.display()))?;
    }
    fs::create_dir_all(&copy).with_context(|| format!("could not create {}", copy.display()))?;
    let entries = fs::read_dir(&source).with_context(|| format!("could not read {}", source.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            let text =
                fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
            let name = path.file_name().context("an entry has a name")?;
            fs::write(copy.join(name), fill_in(&text, layout, keys))?;
        }
    }
    Ok(copy)
}

fn fill_in(text: &str, layout: &Layout, keys: &Keys) -> String {
    let mut text = text
        .replace("${ACME_ISSUER_X}", &keys.issuer_acme.public_x())
        .replace("${GLOBEX_ISSUER_X}", &keys.issuer_globex.public_x());
    for region in REGIONS {
        let name = format!("${{ORIGIN_{}}}", region.id.to_uppercase().replace('-', "_"));
        text = text.replace(&name, &layout.origin_url(region));
    }
    text
}

/// Writes the demo's orders through an edge where they are missing.
///
/// # Errors
/// When the edge or the origin refuses them.
pub fn orders(layout: &Layout, tokens: &Tokens) -> Result<()> {
    let records = layout.cloudflare_url() + "/v1/collections/orders/records";
    let last = format!("{records}?limit=1&number={}", orders::number(orders::COUNT));
    let found = ask(&Request::get(&last).header("host", HOST), &tokens.reader)?;
    if found["records"].as_array().is_some_and(|records| !records.is_empty()) {
        return Ok(());
    }
    let mut step = Step::start(format!("{} demo orders", orders::COUNT));
    let batch = layout.cloudflare_url() + "/v1/collections/orders/batch";
    let all: Vec<Value> = (1..=orders::COUNT).map(orders::order).collect();
    for (index, part) in all.chunks(BATCH).enumerate() {
        step.tick(&format!("{} written", index * BATCH));
        let operations: Vec<Value> =
            part.iter().map(|order| json!({"op": "create", "record": order})).collect();
        let body = json!({"operations": operations});
        // The key makes a second attempt after an interruption harmless.
        let request = Request::post(&batch, &body)
            .header("host", HOST)
            .header("idempotency-key", format!("demo-orders-{index}"));
        ask(&request, &tokens.writer)?;
    }
    step.done("");
    Ok(())
}

fn ask(request: &Request<'_>, token: &str) -> Result<Value> {
    let answer = request.clone().header("authorization", format!("Bearer {token}")).send()?;
    if !(200..300).contains(&answer.status) {
        bail!("{} answered {}: {}", request.url, answer.status, answer.body);
    }
    serde_json::from_str(&answer.body).with_context(|| format!("{} answered no JSON", request.url))
}
