//! `cargo xtask bench profile`: where the processor time of a request goes, function by function, as Linux perf samples it in
//! the processes of both edges under load, and in the engine alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use super::contest::{Cell, Contest, Server, Token};
use super::field::{Field, Place};
use super::peer::{self, PEER};
use super::program;
use crate::progress::say;
use crate::run::run;
use crate::scratch::{Ports, Stop};
use crate::setup::{debian, npm};
use crate::{paths, report};

/// Where the report goes.
const REPORT: &str = "tests/bench/profile.md";
/// Functions of each part of the report: what comes after takes next to nothing each.
const FUNCTIONS_MAX: usize = 20;
/// A longer name is cut to so many characters.
const NAME_CHARS_MAX: usize = 120;
/// Samples a second: none that other clocks of the machine are a multiple of.
const FREQUENCY: &str = "997";
/// What `bench-engine` is asked for: tenants, hostnames, routes, no route for a hostname of its own, hostnames that are asked
/// for, rounds.
const ENGINE: [&str; 6] = ["1", "1", "999", "0", "1", "50"];

/// Where what was compiled as the process ran is.
const COMPILED: &str = "compiled as it ran";
/// Sorts of functions, by what the names of their paths begin with; the first that fits counts.
const SORTS: &[(&str, &[&str])] = &[
    ("the engine", &["meridian_engine", "bench_engine"]),
    ("our shells and hosts", &["meridian_"]),
    (
        "formatting, texts and JSON",
        &["core::fmt", "core::str", "core::num", "alloc::fmt", "alloc::str", "serde", "memchr", "itoa"],
    ),
    (
        "cryptography",
        &[
            "sha2",
            "hmac",
            "digest",
            "p256",
            "primeorder",
            "crypto_bigint",
            "ecdsa",
            "elliptic_curve",
            "__ecp",
            "ecp_",
            "ec_",
            "beeu",
            "bn_",
            "BN_",
            "EVP_",
            "ECDSA",
            "SHA",
            "bssl",
        ],
    ),
    (
        "allocators and copies",
        &[
            "dlmalloc",
            "dlfree",
            "malloc",
            "free",
            "cfree",
            "realloc",
            "mi_",
            "_mi_",
            "_int_",
            "tcmalloc",
            "TCMalloc",
            "operator new",
            "operator delete",
            "mem",
            "__mem",
            "alloc::",
            "core::slice",
            "core::ptr",
            "core::mem",
            "wasmtime_builtin_memory",
        ],
    ),
    ("V8", &["v8::", "Builtins_", "cppgc"]),
    ("wasi-http", &["wasmtime_wasi_http"]),
    ("wasmtime", &["wasmtime"]),
    (
        "HTTP and tokio",
        &[
            "hyper",
            "kj_hyper",
            "http::",
            "httparse",
            "tokio",
            "mio::",
            "bytes::",
            "futures_",
            "workerd_server",
        ],
    ),
    ("workerd's interfaces", &["workerd::"]),
    ("kj: promises, tables, texts", &["kj::", "kj_"]),
];

/// Arguments of `cargo xtask bench profile`.
#[derive(Args, Clone, Debug)]
pub struct ProfileBench {
    /// Only this one; may be given again. No report is written.
    #[arg(long, value_enum)]
    edge: Vec<Subject>,
    /// What the edges are asked for, instead of everything; may be given again. No report is written.
    #[arg(long, value_enum)]
    request: Vec<Kind>,
    /// Seconds for which an edge is looked at.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Use what an earlier build left.
    #[arg(long)]
    no_build: bool,
    /// The edges listen on this port and the next; the upstream and the peer on the two after.
    #[arg(long, default_value_t = 18760)]
    port: u16,
    /// Origins of the stack listen on the ports from one above this, PostgreSQL from 101 above.
    #[arg(long, default_value_t = 18500)]
    base_port: u16,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Subject {
    /// The engine alone, natively.
    Engine,
    /// The component in the Spin host.
    Spin,
    /// The worker on workerd.
    Cloudflare,
    /// A worker written by hand, which does the same on the same workerd.
    Peer,
}

/// What is asked for: the index of a cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Kind {
    /// Forwarded, without a token.
    Open,
    /// Forwarded, with a token that is always new.
    NewToken,
    /// Everything, with a token that is remembered.
    Full,
    /// From the cache.
    Cached,
    /// Nothing that there is: answered by the edge itself.
    Answered,
}

static CONTEST: Contest = Contest {
    servers: &[
        Server { name: "spin", title: "Meridian in the Spin host", ours: true },
        Server { name: "cloudflare", title: "Meridian on workerd", ours: true },
        Server { name: PEER.name, title: "Hono + jose on workerd", ours: false },
    ],
    cells: &[
        Cell::new("forwarded, no JWT", "/open/items", Token::None, 200, true),
        Cell::new("forwarded, ES256 always new", "/auth/items", Token::Es256New, 200, true),
        Cell::new("full pipeline, ES256 remembered", "/full/items", Token::Es256Same, 200, true),
        Cell::new("cache hit, 1 KB", "/cached/kilobyte", Token::None, 200, false),
        Cell::new("answered here, no JWT", "/local/open", Token::None, 404, false),
    ],
    warm_up: &[],
};

/// What the servers of the contest are, in their order.
const SERVERS: [Subject; 3] = [Subject::Spin, Subject::Cloudflare, Subject::Peer];

/// What was found of one server and one kind of request.
struct Part {
    title: String,
    /// Microseconds of processor time for a request, where it was asked for requests.
    request_us: Option<f64>,
    functions: Vec<Function>,
}

/// A function, and its share of the samples in hundredths.
#[derive(Clone, Debug, PartialEq)]
struct Function {
    share: f64,
    /// The file that it is in, or that it was compiled as the process ran.
    object: String,
    name: String,
}

impl ProfileBench {
    /// Samples, prints and writes the report.
    ///
    /// # Errors
    /// When something can't be installed, built or started, or perf may not sample.
    pub fn run(&self) -> Result<()> {
        let stop = Stop::listen()?;
        say("Setting up");
        debian::need_debian(&["wrk"])?;
        let perf = debian::program("perf", "linux-perf")?;
        let folder = paths::target()?.join("bench/profile");
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        let mut parts = Vec::new();
        if self.wants(Subject::Engine) {
            let functions = self.engine(&perf, &folder)?;
            let title = "the engine alone, 1,000 routes".to_owned();
            parts.push(Part { title, request_us: None, functions });
        }
        if SERVERS.into_iter().any(|subject| self.wants(subject)) {
            parts.extend(self.edges(&perf, &folder, &stop)?);
        }
        let text = self.report(&parts, &report::first_line(Command::new(&perf).arg("--version")));
        println!("{text}");
        if self.edge.is_empty() && self.request.is_empty() {
            say(&format!("Written to {}", report::write(REPORT, &text)?.display()));
        }
        Ok(())
    }

    fn wants(&self, subject: Subject) -> bool {
        self.edge.is_empty() || self.edge.contains(&subject)
    }

    fn engine(&self, perf: &Path, folder: &Path) -> Result<Vec<Function>> {
        let binary = program("bench-engine", "bench-engine", "release", self.no_build)?;
        let data = folder.join("engine.data");
        let mut record = recording(perf, &data);
        run("sample the engine", record.arg("--").arg(binary).args(ENGINE))?;
        functions(perf, &data)
    }

    fn edges(&self, perf: &Path, folder: &Path, stop: &Stop) -> Result<Vec<Part>> {
        let place = Place {
            folder,
            ports: Ports { cloudflare: self.port, spin: self.port + 1, base: self.base_port },
            upstream_port: self.port + 2,
            no_build: self.no_build,
            perf_map: true,
        };
        let tools = npm::tools()?;
        let field = Field::start(&CONTEST, &place, stop, |tokens, upstream| {
            Ok(vec![peer::peer(PEER, &tools, folder, self.port + 3, tokens, &upstream.url)?])
        })?;
        let kinds = if self.request.is_empty() { Kind::value_variants() } else { &self.request };
        let servers = CONTEST.servers.iter().zip(SERVERS).filter(|(_, subject)| self.wants(*subject));
        let mut parts = Vec::new();
        for (kind, (server, _)) in
            kinds.iter().flat_map(|kind| servers.clone().map(move |server| (kind, server)))
        {
            let cell = CONTEST.cells.get(*kind as usize).context("a request has a cell")?;
            let title = format!("{}: {}", cell.name, server.title);
            let data = folder.join(format!("{}.data", server.name));
            let loaded = field.under_load(server, cell, self.seconds, |pid| {
                let mut record = recording(perf, &data);
                record.args(["--pid", &pid.to_string(), "--", "sleep", &self.seconds.to_string()]);
                run(&format!("sample {title}"), &mut record).map(drop)
            })?;
            // While the process lives: what it compiled is known by its own file.
            let functions = functions(perf, &data)?;
            parts.push(Part { title, request_us: Some(loaded.server_us), functions });
        }
        Ok(parts)
    }

    fn report(&self, parts: &[Part], perf: &str) -> String {
        let command = format!("cargo xtask bench profile --seconds {}", self.seconds);
        let mut text = report::heading("Where processor time goes", &command, perf);
        text.push_str(ABOUT);
        for Part { title, request_us, functions } in parts {
            let mut sorts: BTreeMap<String, f64> = BTreeMap::new();
            for function in functions {
                *sorts.entry(function.sort()).or_default() += function.share;
            }
            let mut sorts: Vec<_> = sorts.into_iter().collect();
            sorts.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            let us =
                |share: f64| request_us.map_or("–".to_owned(), |us| format!("{:.1}", us * share / 100.0));
            let rows =
                sorts.iter().map(|(sort, share)| vec![sort.clone(), format!("{share:.1}"), us(*share)]);
            text.push_str(&format!("\n## {title}\n\n"));
            if let Some(us) = request_us {
                text.push_str(&format!("{us:.1} µs of its processor time for a request.\n\n"));
            }
            text.push_str(&report::table(&["sort of functions", "%", "µs"], &rows.collect::<Vec<_>>()));
            let top = functions.iter().take(FUNCTIONS_MAX).map(|function| {
                vec![
                    format!("`{}`", function.name),
                    function.object.clone(),
                    format!("{:.2}", function.share),
                ]
            });
            text.push_str(&format!("\nThe first {FUNCTIONS_MAX} functions:\n\n"));
            text.push_str(&report::table(&["function", "where", "%"], &top.collect::<Vec<_>>()));
        }
        text.push_str(&format!("\n{}\n", report::load()));
        text
    }
}

impl Function {
    /// What sort of function it is, and whether it was compiled as the process ran.
    fn sort(&self) -> String {
        if self.object.starts_with('[') {
            return "the kernel".to_owned();
        }
        // Without what tells crates of one name apart: `core[6d9e98711c484d2e]::fmt::write`.
        let name = self.name.trim_start_matches("JS:").trim_start_matches(|letter| "<&*'".contains(letter));
        let name = name.strip_prefix("mut ").unwrap_or(name).trim_start_matches('<');
        let path = match (name.split_once('['), name.split_once(']')) {
            (Some((head, _)), Some((_, tail))) if is_path(head) => format!("{head}{tail}"),
            _ => name.to_owned(),
        };
        let fits = |(_, begins): &&(&str, &[&str])| begins.iter().any(|begin| path.starts_with(begin));
        let sort = SORTS.iter().find(fits).map_or("the rest", |(sort, _)| sort);
        if self.object == COMPILED { format!("{sort}, {COMPILED}") } else { sort.to_owned() }
    }
}

/// Whether this is the beginning of a path of Rust.
fn is_path(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Samples by the clock of the processor: counters of the hardware are not there in most virtual machines.
fn recording(perf: &Path, data: &Path) -> Command {
    let mut record = Command::new(perf);
    record.args(["record", "--event", "cpu-clock", "--freq", FREQUENCY, "--output"]).arg(data);
    record
}

/// What was sampled, the most first.
fn functions(perf: &Path, data: &Path) -> Result<Vec<Function>> {
    let mut command = Command::new(perf);
    command.args(["report", "--stdio", "--no-children", "--fields", "overhead,dso,symbol"]);
    command.args(["--field-separator", "|", "--input"]).arg(data);
    let output = command.output().context("could not run perf report")?;
    let functions: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!functions.is_empty(), "perf has no samples in {}: {said}", data.display());
    Ok(functions)
}

/// A line such as `12.50%|workerd|[.] v8::internal::Heap::Scavenge()`.
fn parse(line: &str) -> Option<Function> {
    let mut fields = line.splitn(3, '|').map(str::trim);
    let share = fields.next()?.trim_end_matches('%').parse().ok()?;
    let (object, symbol) = (fields.next()?, fields.next()?);
    let is_compiled = object.starts_with("[JIT]") || object.starts_with("perf-");
    let object = if is_compiled { COMPILED } else { object };
    let name = symbol.split_once("] ").map_or(symbol, |(_, name)| name);
    let name =
        name.chars().take(NAME_CHARS_MAX).map(|letter| if "|`".contains(letter) { '.' } else { letter });
    Some(Function { share, object: object.to_owned(), name: name.collect() })
}

const ABOUT: &str = "
Shares of the samples that Linux perf takes of a process, so many times a second of its processor time (`cpu-clock`), by the
function that ran, whoever called it, and by its sort, which the beginning of its name tells. The edges answer 32 connections of wrk and are warm; the engine decides the same request
again and again, with all answers at hand. *Compiled as it ran* is Wasm in the Spin host, Wasm and JavaScript on workerd: the
runtimes tell perf their names (`cargo xtask up --perf-map`), which the worker's Wasm has lost where wasm-opt took them. What is
inlined counts as the function that it is in.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_perf_is_read_and_what_is_no_sample_is_not() {
        let function = |share, object: &str, name: &str| {
            Some(Function { share, object: object.to_owned(), name: name.to_owned() })
        };
        assert_eq!(parse("# Overhead|Shared Object|Symbol"), None);
        assert_eq!(parse(""), None);
        let line = "    12.50%|workerd  |[.] v8::internal::operator|(int)";
        assert_eq!(parse(line), function(12.5, "workerd", "v8::internal::operator.(int)"));
        let line = "3.00%|[JIT] tid 77|[.] engine::decide";
        assert_eq!(parse(line), function(3.0, "compiled as it ran", "engine::decide"));
        assert_eq!(
            parse("1.25|[kernel.kallsyms]|[k] copy_user"),
            function(1.25, "[kernel.kallsyms]", "copy_user")
        );
        assert_eq!(parse(&format!("1%|a|[.] {}", "x".repeat(500))).unwrap().name.len(), NAME_CHARS_MAX);
    }

    #[test]
    fn a_function_is_of_the_sort_that_its_path_begins_with() {
        let sort = |object: &str, name: &str| {
            Function { share: 1.0, object: object.to_owned(), name: name.to_owned() }.sort()
        };
        let cases = [
            ("[kernel.kallsyms]", "tcp_ack", "the kernel"),
            (
                "a",
                "meridian_engine::exchange::reply::<impl meridian_engine::exchange::Exchange>::finish",
                "the engine",
            ),
            (
                "a",
                "<&mut serde_json::ser::Serializer<W,F> as serde_core::ser::Serializer>::serialize_str",
                "formatting, texts and JSON",
            ),
            ("a", "<hyper_util::client::legacy::client::Client<C,B>>::send_request", "HTTP and tokio"),
            ("a", "wasmtime_wasi_http::handler::Worker<S>::run_", "wasi-http"),
            (
                "a",
                "kj::_::HeapDisposer<workerd::api::Headers::Header>::disposeImpl",
                "kj: promises, tables, texts",
            ),
            ("libc.so.6", "__memmove_avx512_unaligned_erms", "allocators and copies"),
            ("a", "__ecp_nistz256_mul_montx", "cryptography"),
            ("a", "something", "the rest"),
            (
                COMPILED,
                "core[6d9e98711c484d2e]::fmt::write",
                "formatting, texts and JSON, compiled as it ran",
            ),
            (
                COMPILED,
                "JS:<dlmalloc[e24a27700634d609]::dlmalloc::Dlmalloc<S>>::malloc-188-turbofan",
                "allocators and copies, compiled as it ran",
            ),
            (
                COMPILED,
                "JS:*'__wbg_head_5834c9fc4f6970f7 build/index.js:12:13824",
                "the rest, compiled as it ran",
            ),
        ];
        for (object, name, expected) in cases {
            assert_eq!(sort(object, name), expected, "{name}");
        }
    }

    #[test]
    fn every_request_has_its_cell() {
        assert_eq!(Kind::value_variants().len(), CONTEST.cells.len());
        assert_eq!(CONTEST.cells[Kind::Full as usize].path, "/full/items");
    }
}
