//! Crawlers that say who they are, and what a name server says of their addresses.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meridian_tests::stack::{Stack, eventually, tool};

use crate::EdgeTest;
use crate::upstreams::with_rules;

pub const TESTS: &[(&str, EdgeTest)] =
    &[("crawlers_are_known_by_the_names_of_their_addresses", crawlers_are_known_by_their_names)];

/// How long an edge may take to hear of a name: it asks with its news.
const SEEN_MAX: Duration = Duration::from_secs(20);

const GOOGLEBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
/// Its name has this very address.
const TRUE: &str = "198.51.100.201";
/// Has no name.
const NAMELESS: &str = "198.51.100.202";
/// Has a name of the crawler's, as anybody may give their own addresses, but the name has another address.
const FORGED: &str = "198.51.100.203";

static NAME_SERVER: Mutex<Option<Child>> = Mutex::new(None);

/// Starts a name server, and says what the stack has to be told to ask it.
pub fn environment() -> Result<Vec<(String, String)>> {
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let server = Command::new(tool("MERIDIAN_DNSMASQ")?)
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=", "--pid-file", "--log-facility=-"])
        .args(["--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts"])
        .arg(format!("--port={port}"))
        .args(["--local=/googlebot.com/", "--local=/100.51.198.in-addr.arpa/"])
        .arg(format!("--host-record=crawl-201.googlebot.com,{TRUE}"))
        .arg("--ptr-record=203.100.51.198.in-addr.arpa,crawl-201.googlebot.com")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("dnsmasq does not start")?;
    *NAME_SERVER.lock().map_err(|_| anyhow::anyhow!("a test panicked"))? = Some(server);
    Ok(vec![("MERIDIAN_NAME_SERVERS".to_owned(), format!("127.0.0.1:{port}"))])
}

/// Stops the name server.
pub fn stop() -> Result<()> {
    let server = NAME_SERVER.lock().map_err(|_| anyhow::anyhow!("a test panicked"))?.take();
    if let Some(mut server) = server {
        server.kill()?;
        server.wait()?;
    }
    Ok(())
}

fn crawlers_are_known_by_their_names(stack: &Stack, edge: &str) -> Result<()> {
    let rules = "---\n\
        apiVersion: meridian/v1\nkind: Security\nmetadata: {name: strict}\n\
        spec: {bots: {below: 50, crawlers: [googlebot], unverified: block}}\n---\n\
        apiVersion: meridian/v1\nkind: Security\nmetadata: {name: trusting}\n\
        spec: {bots: {below: 50, crawlers: [googlebot], falseClaims: block}}\n---\n\
        apiVersion: meridian/v1\nkind: Route\nmetadata: {name: strict}\n\
        spec: {match: {path: \"/strict/**\"}, auth: {mode: anonymous}, security: [strict], upstream: own}\n---\n\
        apiVersion: meridian/v1\nkind: Route\nmetadata: {name: trusting}\n\
        spec: {match: {path: \"/trusting/**\"}, auth: {mode: anonymous}, security: [trusting], upstream: own}\n";
    with_rules(stack, edge, rules, |_| {
        let ask = |path: &str, address: &str| {
            stack.edge(edge, "acme")?.with("user-agent", GOOGLEBOT).from(address).get(path)
        };
        eventually(SEEN_MAX, || ask("/strict/a", TRUE)?.expect(200).map(drop)).context("a true claim")?;
        for (what, address) in [("no name", NAMELESS), ("a forged name", FORGED)] {
            eventually(SEEN_MAX, || ask("/trusting/a", address)?.expect(403).map(drop)).context(what)?;
            ask("/strict/a", address)?.expect(403)?;
        }
        let person = stack.edge(edge, "acme")?.from(NAMELESS).with("accept", "text/html");
        let person = person.with("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0");
        let answer =
            person.with("accept-language", "en").with("accept-encoding", "gzip").get("/trusting/a")?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    })
}
