//! Whatever comes in the place of a bundle, an edge keeps its last good rules and goes on serving.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use meridian_engine::ruleset::Target;
use meridian_tests::client::Client;
use meridian_tests::edge::{Edge, Flavour};
use meridian_tests::proxy::{Bundle, Change, Proxy};
use meridian_tests::stack::{Stack, eventually};
use meridian_wire::keyring::SigningKey;
use meridian_wire::signature::Ticket;

use crate::rules::{demo_rules, head, push};
use crate::{EDGES, EdgeTest};

pub const TESTS: &[(&str, EdgeTest)] =
    &[("keeps_its_rules_whatever_comes_as_a_bundle", keeps_its_rules_whatever_comes_as_a_bundle)];

const TARGET: &str = "tenant:acme";
/// How long a bad bundle is offered again and again.
const OFFERED: Duration = Duration::from_secs(3);

fn keeps_its_rules_whatever_comes_as_a_bundle(stack: &Stack, name: &str) -> Result<()> {
    let before = head(stack)?;
    let up = stack.up()?;
    let proxy = Proxy::start(&up.origins["us-east-1"].url, TARGET)?;
    let port = 27310 + u16::try_from(EDGES.iter().position(|edge| *edge == name).context("a known edge")?)?;
    let origins = format!("us-east-1={}", proxy.url);
    let state = stack.data().join(format!("bad-bundles-{name}"));
    // What is older comes from the first bundle that passes.
    let first: Arc<Mutex<Option<Bundle>>> = Arc::default();
    let seen = Arc::clone(&first);
    proxy.change(Some(Arc::new(move |bundle: Bundle| {
        seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| bundle.clone());
        bundle
    })));
    let edge = Edge::start(name, Flavour::Plain, port, &origins, stack.data(), &state)?;
    let visitor = |subject: &str| -> Result<Client> {
        let token = stack.token("acme", &format!("{name}-{subject}"), "orders:read")?;
        Ok(Client::new(&edge.url, "acme.localhost").bearer(&token))
    };
    let client = visitor("first")?;
    eventually(Duration::from_secs(10), || client.get("/v1/whoami")?.expect(200).map(drop))?;
    let first = first.lock().unwrap_or_else(PoisonError::into_inner).clone().context("no bundle passed")?;

    for (bad, change) in bad_bundles(stack, first)? {
        let marker = format!("{name}-{bad}");
        let client = visitor(bad)?;
        proxy.change(Some(change));
        let offered = proxy.changed();
        push_marker(stack, &marker)?;
        let started = Instant::now();
        while started.elapsed() < OFFERED {
            let reply = client.get("/v1/whoami")?;
            ensure!(reply.status == 200, "{bad}: {} {}", reply.status, reply.text());
            ensure!(reply.header("x-marker") != marker, "{bad}: the new rules came through a bad bundle");
            std::thread::sleep(Duration::from_millis(100));
        }
        ensure!(proxy.changed() > offered, "{bad}: the edge never asked for the new bundle");
        proxy.change(None);
        eventually(Duration::from_secs(5), || {
            let reply = client.get("/v1/whoami")?.expect(200)?;
            ensure!(reply.header("x-marker") == marker, "{bad}: the good bundle after it is not served");
            Ok(())
        })?;
    }
    let output = stack.meridian(&["rules", "rollback", "--target", TARGET, "--to", &before, "--json"])?;
    ensure!(output.code == 0, "{}", output.stderr);
    Ok(())
}

/// Releases rules that answer with `x-marker: MARKER`.
fn push_marker(stack: &Stack, marker: &str) -> Result<()> {
    let folder = demo_rules(stack, marker)?;
    let transform = format!(
        "apiVersion: meridian/v1\nkind: Transform\nmetadata:\n  name: marker\nspec:\n  response:\n    set:\n      x-marker: {marker}\n"
    );
    std::fs::write(folder.join("marker.yaml"), transform)?;
    let routes = std::fs::read_to_string(folder.join("routes.yaml"))?;
    std::fs::write(folder.join("routes.yaml"), routes.replace("transforms: [", "transforms: [marker, "))?;
    let output = push(stack, &folder, &[])?;
    ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
    Ok(())
}

fn bad_bundles(stack: &Stack, first: Bundle) -> Result<Vec<(&'static str, Change)>> {
    let key = std::fs::read_to_string(stack.data().join("keys").join("bundle-signing-key"))?;
    let key = SigningKey::parse(key.trim())?;
    let stranger = {
        let mut bytes = ed25519_seed_of_a_stranger();
        bytes.extend(ed25519_public_of(&bytes)?);
        SigningKey::parse(&format!("{}:{}", key.kid(), meridian_wire::encoding::base64url(&bytes)))?
    };
    let (blank_key, huge_key) = (key.clone(), key);
    let change = |change: Box<dyn Fn(Bundle) -> Bundle + Send + Sync>| -> Change { Arc::from(change) };
    Ok(vec![
        (
            "truncated",
            change(Box::new(|mut bundle| {
                bundle.bytes.truncate(bundle.bytes.len() / 2);
                bundle
            })),
        ),
        (
            "altered",
            change(Box::new(|mut bundle| {
                if let Some(byte) = bundle.bytes.get_mut(40) {
                    *byte ^= 1;
                }
                bundle
            })),
        ),
        ("badly-signed", change(Box::new(move |bundle| signed(&stranger, u64::MAX / 2, bundle.bytes)))),
        ("older", change(Box::new(move |_| first.clone()))),
        (
            "blank",
            change(Box::new(move |_| {
                let blank = format!(
                    "{{\"format\":1,\"target\":\"{TARGET}\",\"documents\":[{{\"kind\":\"\",\"metadata\":{{\"name\":\"\"}},\"spec\":{{}},\"source\":{{\"file\":\"\",\"line\":0}}}}]}}"
                );
                signed(&blank_key, u64::MAX / 2, blank.into_bytes())
            })),
        ),
        (
            "oversized",
            change(Box::new(move |_| signed(&huge_key, u64::MAX / 2, vec![b' '; 8 * 1024 * 1024]))),
        ),
    ])
}

fn signed(key: &SigningKey, sequence: u64, bytes: Vec<u8>) -> Bundle {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let target = Target::Tenant("acme".to_owned());
    let ticket = Ticket::of(&target, sequence, &bytes, None, u64::try_from(now_ms).unwrap_or_default());
    Bundle { ticket: ticket.sign(key), bytes }
}

fn ed25519_seed_of_a_stranger() -> Vec<u8> {
    vec![9; 32]
}

fn ed25519_public_of(seed: &[u8]) -> Result<Vec<u8>> {
    use ring::signature::KeyPair as _;
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(seed)
        .map_err(|_| anyhow::anyhow!("a seed has 32 bytes"))?;
    Ok(pair.public_key().as_ref().to_vec())
}
