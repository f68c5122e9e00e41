//! Issuers whose keys are fetched: the keys are kept, and no trouble of the issuer's is a client's or costs it a storm.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::client::Client;
use meridian_tests::stack::{SEEN_MAX, Stack, eventually};
use meridian_wire::encoding::base64url;
use ring::signature::KeyPair as _;

use crate::EdgeTest;
use crate::bad_bundles::roll_back;
use crate::rules::{demo_rules, head, push_for_all};

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("fetches_keys_once_and_keeps_them", fetches_keys_once_and_keeps_them),
    ("bears_an_issuer_in_trouble", bears_an_issuer_in_trouble),
];

/// Seed of the issuer's key.
const SEED: [u8; 32] = [21; 32];
/// How long after a fetch an unknown key is not worth another one.
const INTERVAL: Duration = Duration::from_secs(1);
/// Fetches of an edge in one interval: its instances share what they fetch, but two of them may begin in the same moment.
const FETCHES_MAX: u64 = 2;
/// Requests with a known key.
const REQUESTS: u64 = 200;
/// Clients of a storm and tokens that each of them makes up.
const STRANGERS: usize = 10;
const TOKENS_EACH: usize = 12;

fn fetches_keys_once_and_keeps_them(stack: &Stack, edge: &str) -> Result<()> {
    with_issuer(stack, edge, "10m", |client, _, server| {
        let fetched = server.fetches();
        for _ in 0..REQUESTS {
            client.get("/v1/whoami")?.expect(200)?;
        }
        let again = server.fetches() - fetched;
        ensure!(again == 0, "{again} more fetches for {REQUESTS} requests");
        Ok(())
    })
}

/// Whatever the issuer serves or does not, the keys that were fetched serve on, in instances that are made meanwhile too;
/// tokens with keys that nobody knows are refused, and make the edge ask once an interval.
fn bears_an_issuer_in_trouble(stack: &Stack, edge: &str) -> Result<()> {
    with_issuer(stack, edge, "1s", |client, token, server| {
        for trouble in [Trouble::Down, Trouble::Garbage, Trouble::ManyKeys, Trouble::Slow] {
            server.has(trouble);
            let fetched = server.fetches();
            // The last answer may be younger than the interval.
            eventually(INTERVAL * 10, || {
                stranger(client, token, "first")?;
                ensure!(server.fetches() > fetched, "{trouble:?}: a new key is not looked for");
                Ok(())
            })?;
            let (fetched, started) = (server.fetches(), Instant::now());
            let storm: Vec<_> = (0..STRANGERS)
                .map(|number| {
                    let (client, token) = (client.clone(), token.to_owned());
                    std::thread::spawn(move || {
                        (0..TOKENS_EACH)
                            .try_for_each(|at| stranger(&client, &token, &format!("{number}-{at}")))
                    })
                })
                .collect();
            for storm in storm {
                storm.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
            client.get("/v1/whoami")?.expect(200).with_context(|| format!("{trouble:?}: a known key"))?;
            let intervals = 2 + u64::try_from(started.elapsed().as_millis() / INTERVAL.as_millis())?;
            let fetches = server.fetches() - fetched;
            println!("{edge}, {trouble:?}: {fetches} fetches in {intervals} intervals");
            ensure!(
                fetches <= FETCHES_MAX * intervals,
                "{trouble:?}: {fetches} fetches in {intervals} intervals for {} tokens",
                STRANGERS * TOKENS_EACH
            );
        }
        server.has(Trouble::None);
        Ok(())
    })
}

/// Shows a token whose key nobody knows.
fn stranger(client: &Client, token: &str, kid: &str) -> Result<()> {
    let header = base64url(format!("{{\"alg\":\"EdDSA\",\"typ\":\"JWT\",\"kid\":\"{kid}\"}}").as_bytes());
    let (_, rest) = token.split_once('.').context("a token has parts")?;
    let status = client.bearer(&format!("{header}.{rest}")).get("/v1/whoami")?.status;
    // The key may be a new one that the issuer can't tell of now.
    ensure!(matches!(status, 401 | 503), "status {status}");
    Ok(())
}

/// Adds an issuer whose key set is fetched to the demo's rules, hands a client with a good token of it to the test once
/// the edge takes that, and takes the rules back.
fn with_issuer(
    stack: &Stack,
    edge: &str,
    interval: &str,
    test: impl FnOnce(&Client, &str, &KeyServer) -> Result<()>,
) -> Result<()> {
    let before = head(stack)?;
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&SEED)
        .map_err(|_| anyhow::anyhow!("a seed has 32 bytes"))?;
    let public = pair.public_key().as_ref();
    let key_file = stack.data().join("fetched.key");
    std::fs::write(&key_file, format!("fetched:{}", base64url(&[&SEED[..], public].concat())))?;
    let server = KeyServer::start(format!("{{\"keys\":[{}]}}", jwk("fetched", public)))?;
    let folder = demo_rules(stack, &format!("{edge}-fetched"))?;
    // With a second issuer its tests would have to say whose tokens they mean.
    std::fs::remove_file(folder.join("tests.yaml"))?;
    let issuer = format!(
        "apiVersion: meridian/v1\nkind: Issuer\nmetadata:\n  name: fetched\nspec:\n  issuer: https://fetched.example\n  \
         audiences: [\"https://api.acme.example\"]\n  algorithms: [EdDSA]\n  \
         jwks: {{url: \"{}\", refetchInterval: {interval}}}\n",
        server.url
    );
    std::fs::write(folder.join("fetched.yaml"), issuer)?;
    push_for_all(stack, &folder)?;
    let key_file = key_file.to_str().context("a UTF-8 path")?;
    let token = stack.meridian(&[
        "token",
        "mint",
        "--key",
        key_file,
        "--tenant",
        "acme",
        "--iss",
        "https://fetched.example",
        "--sub",
        "visitor",
        "--scope",
        "orders:read",
    ])?;
    ensure!(token.code == 0, "{}", token.stderr);
    let token = token.stdout.trim();
    let client = stack.edge(edge, "acme")?.bearer(token);
    eventually(SEEN_MAX, || client.get("/v1/whoami")?.expect(200).map(drop))?;
    let outcome = test(&client, token, &server);
    roll_back(stack, &before)?;
    outcome
}

fn jwk(kid: &str, public: &[u8]) -> String {
    format!(
        "{{\"kid\":\"{kid}\",\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"EdDSA\",\"x\":\"{}\"}}",
        base64url(public)
    )
}

/// What may be wrong with an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Trouble {
    None,
    /// Connections are closed without an answer.
    Down,
    /// The answer is no key set.
    Garbage,
    /// The answer is a set of 10,000 keys, far more than is read.
    ManyKeys,
    /// The answer does not come.
    Slow,
}

impl Trouble {
    fn of(number: u8) -> Self {
        [Self::Down, Self::Garbage, Self::ManyKeys, Self::Slow]
            .into_iter()
            .find(|trouble| *trouble as u8 == number)
            .unwrap_or(Self::None)
    }
}

/// Serves a key set, or what its trouble makes of it, and counts how often it was asked.
struct KeyServer {
    url: String,
    fetches: Arc<AtomicU64>,
    trouble: Arc<AtomicU8>,
}

impl KeyServer {
    fn start(set: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/jwks.json", listener.local_addr()?);
        let (fetches, trouble) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU8::new(0)));
        let server = Self { url, fetches: Arc::clone(&fetches), trouble: Arc::clone(&trouble) };
        let many: Vec<String> = (0..10_000).map(|number| jwk(&format!("many-{number}"), &[7; 32])).collect();
        let many = format!("{{\"keys\":[{}]}}", many.join(","));
        std::thread::spawn(move || {
            // Connections that are never answered, until the end of the process.
            let mut unanswered = Vec::new();
            for stream in listener.incoming().flatten() {
                fetches.fetch_add(1, Ordering::Relaxed);
                let body = match Trouble::of(trouble.load(Ordering::Relaxed)) {
                    Trouble::None => set.as_str(),
                    Trouble::Garbage => "<html>Sorry</html>",
                    Trouble::ManyKeys => many.as_str(),
                    Trouble::Down => continue,
                    Trouble::Slow => {
                        unanswered.push(stream);
                        continue;
                    }
                };
                // A client that went away asks again.
                let _gone = answer(stream, body);
            }
        });
        Ok(server)
    }

    fn has(&self, trouble: Trouble) {
        self.trouble.store(trouble as u8, Ordering::Relaxed);
    }

    fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }
}

fn answer(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    let mut head = [0; 4096];
    let _head = stream.read(&mut head)?;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
