//! Whatever comes in the place of a bundle, an edge keeps its last good rules and goes on serving.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use meridian_engine::ruleset::Target;
use meridian_tests::client::Client;
use meridian_tests::edge::{Edge, Flavour};
use meridian_tests::proxy::{Bundle, Change, Proxy};
use meridian_tests::stack::{Stack, eventually};
use meridian_wire::encoding::base64url;
use meridian_wire::keyring::SigningKey;
use meridian_wire::limits::BUNDLE_BYTES_MAX;
use meridian_wire::signature::Ticket;

use crate::rules::{demo_rules, head, push};
use crate::{EDGES, EdgeTest};

pub const TESTS: &[(&str, EdgeTest)] =
    &[("keeps_its_rules_whatever_comes_as_a_bundle", keeps_its_rules_whatever_comes_as_a_bundle)];

/// The target whose bundles are tampered with.
pub const TARGET: &str = "tenant:acme";
/// What is good once, though not what is in force now.
pub const OLDER: &str = "older";
/// A bad bundle is offered to a running edge this many times.
const OFFERS: u64 = 3;
/// An edge asks for a newer bundle again and again, so that this takes a few seconds.
const OFFERED_MAX: Duration = Duration::from_secs(20);

fn keeps_its_rules_whatever_comes_as_a_bundle(stack: &Stack, name: &str) -> Result<()> {
    let before = head(stack)?;
    let up = stack.up()?;
    let proxy = Proxy::start(&up.origins["us-east-1"].url, TARGET)?;
    let origins = format!("us-east-1={}", proxy.url);
    let state = stack.data().join(format!("bad-bundles-{name}"));
    // What is older comes from the first bundle that passes.
    let first: Arc<Mutex<Option<Bundle>>> = Arc::default();
    let seen = Arc::clone(&first);
    proxy.change(Some(Arc::new(move |bundle: Bundle| {
        seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| bundle.clone());
        bundle
    })));
    let edge = Edge::start(name, Flavour::Plain, port(name)?, &origins, stack.data(), &state)?;
    let client = visitor(stack, &edge, "first")?;
    eventually(Duration::from_secs(10), || client.get("/v1/whoami")?.expect(200).map(drop))?;
    let first = first.lock().unwrap_or_else(PoisonError::into_inner).clone().context("no bundle passed")?;

    let mut in_force = before.clone();
    for (bad, change) in bad_bundles(stack, first)? {
        let client = visitor(stack, &edge, bad)?;
        proxy.change(Some(change));
        let newest = push_marker(stack, &format!("{name}-{bad}"))?;
        let started = Instant::now();
        while proxy.changed() < OFFERS {
            let reply = client.get("/v1/whoami")?.expect(200).context(bad)?;
            let serves = reply.header("meridian-bundle");
            ensure!(serves == in_force, "{bad}: serves {serves}, {in_force} is the last good one");
            ensure!(started.elapsed() < OFFERED_MAX, "{bad}: offered {} times", proxy.changed());
            std::thread::sleep(Duration::from_millis(50));
        }
        proxy.change(None);
        eventually(Duration::from_secs(5), || {
            let reply = client.get("/v1/whoami")?.expect(200)?;
            let serves = reply.header("meridian-bundle");
            ensure!(serves == newest, "{bad}: serves {serves}, not the good {newest} after it");
            Ok(())
        })?;
        in_force = newest;
    }
    roll_back(stack, &before)
}

/// Port of the edge that is tampered with.
pub fn port(edge: &str) -> Result<u16> {
    let index = EDGES.iter().position(|known| *known == edge).context("a known edge")?;
    Ok(27310 + u16::try_from(index)?)
}

/// A client of acme on this edge.
pub fn visitor(stack: &Stack, edge: &Edge, subject: &str) -> Result<Client> {
    let token = stack.token("acme", &format!("{}-{subject}", edge.name), "orders:read")?;
    Ok(Client::new(&edge.url, "acme.localhost").bearer(&token))
}

/// Releases rules that answer with `x-marker: MARKER`; returns their version.
pub fn push_marker(stack: &Stack, marker: &str) -> Result<String> {
    let folder = demo_rules(stack, marker)?;
    let transform = format!(
        "apiVersion: meridian/v1\nkind: Transform\nmetadata:\n  name: marker\nspec:\n  response:\n    set:\n      x-marker: {marker}\n"
    );
    std::fs::write(folder.join("marker.yaml"), transform)?;
    let routes = std::fs::read_to_string(folder.join("routes.yaml"))?;
    std::fs::write(folder.join("routes.yaml"), routes.replace("transforms: [", "transforms: [marker, "))?;
    let output = push(stack, &folder, &[])?;
    ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
    head(stack)
}

/// Puts acme's rules of this version in force again.
pub fn roll_back(stack: &Stack, to: &str) -> Result<()> {
    let output = stack.meridian(&["rules", "rollback", "--target", TARGET, "--to", to, "--json"])?;
    ensure!(output.code == 0, "{}", output.stderr);
    Ok(())
}

/// Ways to spoil a bundle, by name; [`OLDER`] puts `older` in its place. Where its text still parses it is another one
/// than before, so that whoever takes it in shows that by its version.
pub fn bad_bundles(stack: &Stack, older: Bundle) -> Result<Vec<(&'static str, Change)>> {
    let ours = std::fs::read_to_string(stack.data().join("keys").join("bundle-signing-key"))?;
    let ours = SigningKey::parse(ours.trim())?;
    let stranger = stranger(ours.kid())?;
    let sent = |spoil: Spoil| -> Change {
        Arc::new(move |Bundle { ticket, bytes }| Bundle { ticket, bytes: spoil(bytes) })
    };
    let signed = |key: &SigningKey, tenant: &str, spoil: Spoil| -> Change {
        let (key, target) = (key.clone(), Target::Tenant(tenant.to_owned()));
        Arc::new(move |Bundle { bytes, .. }| signed(&key, &target, spoil(bytes)))
    };
    Ok(vec![
        ("truncated", sent(halved)),
        ("altered", sent(marred)),
        ("without-ticket", Arc::new(|Bundle { bytes, .. }| Bundle { ticket: String::new(), bytes })),
        ("badly-signed", signed(&stranger, "acme", marred)),
        ("of-another-tenant", signed(&ours, "globex", marred)),
        (OLDER, Arc::new(move |_| older.clone())),
        ("blank", signed(&ours, "acme", |_| BLANK.into())),
        ("of-another-form", signed(&ours, "acme", |_| OF_ANOTHER_FORM.into())),
        ("oversized", signed(&ours, "acme", padded)),
    ])
}

type Spoil = fn(Vec<u8>) -> Vec<u8>;

const BLANK: &str = r#"{"format":1,"target":"tenant:acme","documents":[{"kind":"","metadata":{"name":""},"spec":{},"source":{"file":"","line":0}}]}"#;
const OF_ANOTHER_FORM: &str = r#"{"format":1,"target":"tenant:acme","rules":["allow everything"]}"#;

fn halved(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() / 2);
    bytes
}

/// Changes a name that stands in the rules of [`push_marker`], or else the first bytes.
fn marred(bytes: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8_lossy(&bytes).replace("x-marker", "x-marred");
    if text.as_bytes() == bytes { [b" ", &bytes[..]].concat() } else { text.into_bytes() }
}

/// Adds spaces, which JSON allows, until only the limit is against it.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(BUNDLE_BYTES_MAX + 1, b' ');
    bytes
}

fn signed(key: &SigningKey, target: &Target, bytes: Vec<u8>) -> Bundle {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let ticket = Ticket::of(target, u64::MAX / 2, &bytes, None, u64::try_from(now_ms).unwrap_or_default());
    Bundle { ticket: ticket.sign(key), bytes }
}

/// A key that nobody trusts, under the id of one that is.
fn stranger(kid: &str) -> Result<SigningKey> {
    use ring::signature::KeyPair as _;
    let seed = [9; 32];
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&seed)
        .map_err(|_| anyhow::anyhow!("a seed has 32 bytes"))?;
    let secret = base64url(&[&seed[..], pair.public_key().as_ref()].concat());
    Ok(SigningKey::parse(&format!("{kid}:{secret}"))?)
}
