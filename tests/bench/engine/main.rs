//! What `cargo xtask bench engine` runs, once for each setting so that memory is measured in a fresh process: the engine
//! alone, natively, deciding requests whose steps are answered at once. Prints one line of JSON.
//!
//! A request has a token that the node remembers, a limit, an experiment, steering over three regions, a transform, and a
//! response that is forwarded: everything of the pipeline but the cache.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use meridian_engine::compiled::Compiled;
use meridian_engine::exchange::Exchange;
use meridian_engine::facts::{BodySize, Facts, Place, Scheme};
use meridian_engine::headers::Headers;
use meridian_engine::limits::HOST_ASK_MS;
use meridian_engine::node::Node;
use meridian_engine::ruleset::{Platform, Ruleset, Target};
use meridian_engine::secret::Secrets;
use meridian_engine::step::{Answer, LoadKey, Loaded, Reply, ResponseHead, Step, SyncNews};
use meridian_wire::authored::{self, File};
use meridian_wire::bundle::{Bundle, Rules};
use meridian_wire::encoding::base64url;
use meridian_wire::limits::FILE_DOCUMENTS_MAX;
use serde_json::json;

/// As in the Spin host.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW_MS: u64 = 1_800_000_000_000;
/// Requests of one round.
const REQUESTS: usize = 100_000;

/// Who there is, and what of it is asked for.
struct Setting {
    /// Tenants, with the same rules.
    tenants: usize,
    /// Hostnames of each tenant.
    hosts: usize,
    /// Routes of each tenant beside the one that is asked for.
    routes: usize,
    /// Whether each of those routes is for another host and the same path, rather than for another path.
    by_host: bool,
    /// Hostnames that are asked for, one after the other.
    asked: usize,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> Result<usize> { Ok(arguments.get(at).context("seven arguments")?.parse()?) };
    let setting = Setting {
        tenants: number(0)?,
        hosts: number(1)?,
        routes: number(2)?,
        by_host: number(3)? == 1,
        asked: number(4)?,
    };
    let rounds = number(5)?;
    let world = World::new(&setting)?;
    let before = resident_bytes()?;
    let mut node = Node::new("bench", Secrets::new(&[7; 32], &[7; 32]));
    // As fast as hostnames may be asked for.
    let mut now_ms = NOW_MS;
    for at in 0..setting.asked {
        now_ms += HOST_ASK_MS;
        decide(&mut node, &world, at, now_ms)?;
    }
    let bytes = resident_bytes()?.saturating_sub(before);
    let nanoseconds: Vec<f64> = (0..rounds)
        .map(|_| {
            let started = Instant::now();
            for at in 0..REQUESTS {
                now_ms += HOST_ASK_MS;
                black_box(decide(&mut node, &world, at % setting.asked, now_ms)?);
            }
            Ok(started.elapsed().as_nanos() as f64 / REQUESTS as f64)
        })
        .collect::<Result<_>>()?;
    let swap_ms = world.swaps(rounds)?;
    let push_ms = world.push_ms;
    println!(
        "{}",
        json!({ "nanoseconds": nanoseconds, "bytes": bytes, "swap_ms": swap_ms, "push_ms": push_ms })
    );
    Ok(())
}

/// What answers the engine's steps.
struct World {
    platform: Arc<Platform>,
    rules: Ruleset,
    /// The bundle that the rules are.
    bundle: Vec<u8>,
    /// How long making it of the files took.
    push_ms: f64,
    hosts: usize,
    facts: Vec<Facts>,
}

impl World {
    fn new(setting: &Setting) -> Result<Self> {
        let platform = match compiled(&Target::Platform, vec![PLATFORM.to_owned()])?.rules {
            Rules::Platform(platform) => Arc::new(platform),
            Rules::Tenant(_) => bail!("the platform's rules"),
        };
        let mut texts = vec![RULES.to_owned()];
        for number in 0..setting.routes {
            if number % FILE_DOCUMENTS_MAX == 0 {
                texts.push(String::new());
            }
            let of = if setting.by_host {
                format!("path: \"/v1/orders/{{id}}\", hosts: [h{number}.shop.example]")
            } else {
                format!("path: \"/v1/things-{number}/{{id}}\"")
            };
            let text = texts.last_mut().context("a file")?;
            text.push_str(&format!(
                "---\napiVersion: meridian/v1\nkind: Route\nmetadata: {{name: r{number}}}\nspec: {{match: {{{of}}}}}\n"
            ));
        }
        let started = Instant::now();
        let compiled = compiled(&tenant(), texts)?;
        let push_ms = started.elapsed().as_secs_f64() * 1e3;
        let (rules, bundle) = match compiled.rules {
            Rules::Tenant(rules) => (*rules, compiled.bytes),
            Rules::Platform(_) => bail!("a tenant's rules"),
        };
        let all = setting.tenants * setting.hosts;
        // Spread over all that there are, whatever part of them is asked for.
        let facts = (0..setting.asked).map(|at| facts(&host(at * (all / setting.asked)), at)).collect();
        Ok(Self { platform, rules, bundle, push_ms, hosts: setting.hosts, facts })
    }

    /// How long a node is busy with a new bundle of one tenant, in milliseconds: reading it, and making it ready for requests.
    /// What it takes to verify its signature and hash is not in it.
    fn swaps(&self, rounds: usize) -> Result<Vec<f64>> {
        let swap = || -> Result<f64> {
            let started = Instant::now();
            match Bundle::parse(&self.bundle, &tenant(), 2)? {
                Rules::Tenant(rules) => _ = black_box(Compiled::new(Arc::from(rules))),
                Rules::Platform(_) => bail!("a tenant's rules"),
            }
            Ok(started.elapsed().as_secs_f64() * 1e3)
        };
        (0..rounds).map(|_| swap()).collect()
    }

    /// The tenant that a hostname belongs to.
    fn tenant_of(&self, host: &str) -> Option<String> {
        let number: usize = host.split('.').next()?.strip_prefix('h')?.parse().ok()?;
        Some(format!("t{}", number / self.hosts))
    }

    fn load(&self, key: &LoadKey) -> Loaded {
        match key {
            LoadKey::Host(host) | LoadKey::StoredHost(host) => Loaded::Host(self.tenant_of(host)),
            LoadKey::Target(Target::Platform) => Loaded::Platform(Arc::clone(&self.platform)),
            LoadKey::Target(Target::Tenant(slug)) => {
                let number: usize = slug.get(1..).and_then(|number| number.parse().ok()).unwrap_or_default();
                let mut rules = self.rules.clone();
                rules.tenant.slug.clone_from(slug);
                rules.tenant.domains = (0..self.hosts).map(|at| host(number * self.hosts + at)).collect();
                Loaded::Ruleset(Arc::new(rules))
            }
        }
    }

    fn answer(&self, step: &Step) -> Result<Answer> {
        Ok(match step {
            Step::Sync(_) => Answer::Synced(Some(SyncNews { now_ms: NOW_MS, ..SyncNews::default() })),
            Step::Load(keys) => Answer::Loaded(keys.iter().map(|key| self.load(key)).collect()),
            Step::Verify(_) => Answer::Verified(true),
            Step::Forward(forward) => Answer::Forwarded {
                attempt: forward.attempt,
                result: Ok(ResponseHead {
                    status: 200,
                    headers: [("content-type", "application/json"), ("content-length", "2")]
                        .into_iter()
                        .collect(),
                    elapsed_ms: 5,
                    ran: None,
                }),
            },
            step => bail!("a step that these rules don't lead to: {step:?}"),
        })
    }
}

fn decide(node: &mut Node, world: &World, at: usize, now_ms: u64) -> Result<Box<Reply>> {
    let facts = Facts { now_ms, ..world.facts.get(at).context("a request")?.clone() };
    let (mut exchange, mut step) = Exchange::begin(node, facts);
    loop {
        match step {
            Step::Reply(reply) if reply.status == 200 => return Ok(reply),
            Step::Reply(reply) => bail!("status {}: {:?}", reply.status, reply.decision),
            _ => step = exchange.resume(node, world.answer(&step)?, now_ms),
        }
    }
}

fn host(number: usize) -> String {
    format!("h{number}.shop.example")
}

fn facts(host: &str, client: usize) -> Facts {
    let client = u32::try_from(client).unwrap_or_default();
    let claims = json!({
        "iss": "https://issuer.example", "aud": "https://api.example", "sub": "ada", "scope": "orders:read",
        "iat": NOW_MS / 1_000 - 60, "exp": NOW_MS / 1_000 + 86_400,
    });
    let header = base64url(br#"{"alg":"EdDSA","kid":"a","typ":"JWT"}"#);
    let token = format!("{header}.{}.{}", base64url(claims.to_string().as_bytes()), base64url(&[1; 64]));
    let headers: Headers = [
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("authorization", &format!("Bearer {token}")),
    ]
    .into_iter()
    .collect();
    Facts {
        method: "GET".to_owned(),
        scheme: Scheme::Https,
        host: host.to_owned(),
        path: "/v1/orders/42".to_owned(),
        query: Some("limit=10".to_owned()),
        headers,
        client: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | client)),
        place: Place { country: Some("DE".to_owned()), ..Place::default() },
        body: BodySize::Empty,
        now_ms: NOW_MS,
        random: [9; 16],
    }
}

fn tenant() -> Target {
    Target::Tenant("bench".to_owned())
}

fn compiled(target: &Target, texts: Vec<String>) -> Result<authored::Compiled> {
    let file = |(at, content): (usize, String)| File { path: format!("{at}.yaml"), content };
    let files: Vec<File> = texts.into_iter().enumerate().map(file).collect();
    authored::compile(target, &files, None).map_err(|refused| {
        let text: Vec<String> = refused.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", text.join("\n"))
    })
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let fields: BTreeMap<&str, &str> = status.lines().filter_map(|line| line.split_once(':')).collect();
    let resident = fields.get("VmRSS").context("VmRSS")?.trim().trim_end_matches(" kB");
    Ok(resident.parse::<u64>()? * 1_024)
}

const PLATFORM: &str = r#"
apiVersion: meridian/v1
kind: Region
metadata: {name: us-east-1}
spec: {ordinal: 1, coordinates: {latitude: 39.0, longitude: -77.5}, origins: ["https://us.example"]}
---
apiVersion: meridian/v1
kind: Region
metadata: {name: eu-west-1}
spec: {ordinal: 2, coordinates: {latitude: 53.3, longitude: -6.3}, origins: ["https://eu.example"]}
---
apiVersion: meridian/v1
kind: Region
metadata: {name: ap-southeast-1}
spec: {ordinal: 3, coordinates: {latitude: 1.3, longitude: 103.8}, origins: ["https://ap.example"]}
"#;

const RULES: &str = r#"
apiVersion: meridian/v1
kind: Tenant
metadata: {name: bench}
spec: {homeRegion: us-east-1, allowedRegions: [us-east-1, eu-west-1, ap-southeast-1]}
---
apiVersion: meridian/v1
kind: Issuer
metadata: {name: bench}
spec:
  issuer: https://issuer.example
  audiences: [https://api.example]
  algorithms: [EdDSA]
  keys: [{kid: a, alg: EdDSA, kty: OKP, crv: Ed25519, x: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE}]
---
apiVersion: meridian/v1
kind: RateLimit
metadata: {name: per-subject}
spec: {key: [subject], quota: 60000000, window: 1m, scope: node}
---
apiVersion: meridian/v1
kind: Experiment
metadata: {name: checkout}
spec: {variants: [{name: control, weight: 1}, {name: express, weight: 1}]}
---
apiVersion: meridian/v1
kind: Transform
metadata: {name: tell-the-variant}
spec: {response: {set: {X-Variant: {cel: "variants['checkout']"}}}}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: orders}
spec:
  match: {path: "/v1/orders/{id}", methods: [GET]}
  auth: {scopes: ["orders:read"]}
  limits: [per-subject]
  experiments: [checkout]
  transforms: [tell-the-variant]
"#;
