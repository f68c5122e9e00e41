//! What `cargo xtask up` promises about the stack itself.

use anyhow::{Context, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::Stack;

use crate::StackTest;

pub const TESTS: &[(&str, StackTest)] = &[
    ("up_json_names_everything", up_json_names_everything),
    ("postgresql_runs_unprivileged", postgresql_runs_unprivileged),
    ("origins_are_healthy_and_measured", origins_are_healthy_and_measured),
    ("origins_refuse_requests_without_context", origins_refuse_requests_without_context),
    ("the_api_describes_itself", the_api_describes_itself),
    ("secrets_stay_out_of_the_logs", secrets_stay_out_of_the_logs),
];

/// What reads an origin's numbers.
const METRICS_TOKEN: &str = "numbers-of-a-test";

/// What the stack has to be told to show them.
pub fn environment() -> Vec<(String, String)> {
    vec![("MERIDIAN_METRICS_TOKEN".to_owned(), METRICS_TOKEN.to_owned())]
}

/// The numbers of the origin at this URL.
pub fn metrics(origin: &str) -> Result<String> {
    let client = Client::new(origin, "origin").bearer(METRICS_TOKEN);
    Ok(client.get("/metrics")?.expect(200)?.text())
}

fn up_json_names_everything(stack: &Stack) -> Result<()> {
    let up = stack.up()?;
    ensure!(up.edges.keys().eq(["cloudflare", "spin"]), "{:?}", up.edges);
    ensure!(up.origins.keys().eq(["ap-southeast-1", "eu-west-1", "us-east-1"]), "{:?}", up.origins);
    let acme = up.tenant("acme")?;
    ensure!(acme.host == "acme.localhost" && acme.collection == "orders");
    for token in ["reader", "writer", "expired", "other_tenant"] {
        ensure!(acme.tokens[token].split('.').count() == 3, "{token} is no JWT");
    }
    for region in up.origins.keys() {
        up.address_near(region)?;
        for process in ["postgres", "origin"] {
            ensure!(up.pids.contains_key(&format!("{process}-{region}")), "{:?}", up.pids);
        }
    }
    ensure!(up.pids.contains_key("edge-cloudflare") && up.pids.contains_key("edge-spin"), "{:?}", up.pids);
    Ok(())
}

fn postgresql_runs_unprivileged(stack: &Stack) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    for (name, pid) in stack.up()?.pids.iter().filter(|(name, _)| name.starts_with("postgres-")) {
        let owner = std::fs::metadata(format!("/proc/{pid}")).with_context(|| format!("{name} runs"))?.uid();
        ensure!(owner != 0, "{name} runs as root");
    }
    Ok(())
}

fn origins_are_healthy_and_measured(stack: &Stack) -> Result<()> {
    for origin in stack.up()?.origins.values() {
        let client = Client::new(&origin.url, "origin");
        client.get("/healthz")?.expect(200)?;
        client.get("/readyz")?.expect(200)?;
        client.get("/metrics")?.expect(401)?;
        let metrics = metrics(&origin.url)?;
        ensure!(metrics.contains("# TYPE meridian_"), "{metrics}");
    }
    Ok(())
}

fn origins_refuse_requests_without_context(stack: &Stack) -> Result<()> {
    for origin in stack.up()?.origins.values() {
        let client = Client::new(&origin.url, "acme.localhost");
        for path in ["/v1/collections/orders/records", "/v1/whoami", "/edge/v1/hosts/acme.localhost"] {
            client.get(path)?.expect(401)?;
            client.with("meridian-context", "v1.k1.e30.AAAA").get(path)?.expect(401)?;
        }
    }
    Ok(())
}

fn the_api_describes_itself(stack: &Stack) -> Result<()> {
    let control = stack.up()?.control;
    let api = Client::new(&control.url, "control").get("/openapi.json")?.expect(200)?.value()?;
    ensure!(api["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", api["openapi"]);
    ensure!(api["paths"].as_object().is_some_and(|paths| paths.len() > 10));
    Ok(())
}

fn secrets_stay_out_of_the_logs(stack: &Stack) -> Result<()> {
    let up = stack.up()?;
    let mut secrets = vec![up.control.token.clone()];
    secrets.extend(up.tenants.iter().flat_map(|tenant| tenant.tokens.values().cloned()));
    let logs = stack.data().join("log");
    let mut read = 0;
    for log in std::fs::read_dir(&logs)? {
        let path = log?.path();
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        read += 1;
        for secret in &secrets {
            ensure!(!text.contains(secret.as_str()), "{} holds a token", path.display());
        }
    }
    ensure!(read >= 5, "only {read} logs");
    Ok(())
}
