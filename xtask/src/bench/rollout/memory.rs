//! Memory: what an edge holds after it has served many tenants, or one with many routes.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Serialize;

use super::control::File;
use super::edges::{Kind, OwnEdge};
use super::{HOME, HOST, OPEN, Rig, WIDE_HOST, forget, wide_path};
use crate::limits::{POLL, ROLLOUT_SEEN_MAX};
use crate::progress::{Step, say};
use crate::report;
use crate::scratch::Stop;
use crate::soak::processes::{Look, Processes};
use crate::stack::http::{Request, agent};

/// Threads that make tenants, and that ask.
const THREADS: usize = 8;
/// Half of the networks for measurements (RFC 2544, appendix C.2.2), 198.19.0.0/16: no place is known of them.
const CLIENTS: u32 = 0xC613_0000;
/// An edge's answer while it asks for no more hostnames.
const NOT_NOW: u16 = 503;

/// What one edge held in one setting.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    edge: Kind,
    what: String,
    #[serde(flatten)]
    look: Look,
}

/// Whom requests are for: a hostname and a path by the number of the request.
type Asked<'a> = (String, Box<dyn Fn(usize) -> (String, String) + Sync + 'a>);

/// Measures. The wide tenant is there already.
///
/// # Errors
/// When a tenant can't be made, or an edge does not answer.
pub fn measure(rig: &Rig, tenants: usize, routes: usize) -> Result<Vec<Held>> {
    say("Memory");
    make(rig, tenants)?;
    let requests = tenants.max(routes);
    let of_tenant = |number: usize| (host(number), OPEN.to_owned());
    let settings: [Asked<'_>; 3] = [
        ("2 tenants".to_owned(), Box::new(move |number| of_tenant(number % 2))),
        (format!("{tenants} tenants"), Box::new(move |number| of_tenant(number % tenants))),
        (
            format!("one tenant of {routes} routes"),
            Box::new(move |number| (WIDE_HOST.to_owned(), wide_path(number % routes))),
        ),
    ];
    let mut all = Vec::new();
    for (what, asked) in &settings {
        for kind in Kind::ALL {
            let state = rig.state("memory")?;
            let edge = OwnEdge::start(rig, kind.service(rig, &state)?, HOST, OPEN)?;
            let mut step = Step::start(format!("{requests} requests to the {}: {what}", kind.title()));
            let repeated = AtomicUsize::new(0);
            side_by_side(rig, requests, &mut step, |agent, number| {
                let (host, path) = asked(number);
                let times = ask(agent, &format!("{}{path}", edge.url), &host, number, &rig.stop)?;
                repeated.fetch_add(times, Ordering::Relaxed);
                Ok(())
            })?;
            let look = Processes::now().look(edge.pid());
            let look = look.with_context(|| format!("the {} has ended", kind.title()))?;
            step.done(&format!("{:.0} MB, {} repeated", look.mb, repeated.into_inner()));
            all.push(Held { edge: kind, what: what.clone(), look });
            drop(edge);
            forget(&state)?;
        }
    }
    Ok(all)
}

/// Asks until it is answered, and says how often it was repeated. An edge bounds the questions for hostnames that it does not
/// know, those of one network more than those of all: each request comes from a network of its own.
fn ask(agent: &ureq::Agent, url: &str, host: &str, number: usize, stop: &Stop) -> Result<usize> {
    let (started, client) = (Instant::now(), client(number).to_string());
    let mut repeated = 0;
    loop {
        stop.check()?;
        let request = Request::get(url).header("host", host).header("x-forwarded-for", client.as_str());
        let status = request.send_by(agent)?.status;
        if status == 200 {
            return Ok(repeated);
        }
        let again = status == NOT_NOW && started.elapsed() < ROLLOUT_SEEN_MAX;
        ensure!(again, "request {number}, repeated {repeated} times: {url} of {host} answers {status}");
        repeated += 1;
        std::thread::sleep(POLL);
    }
}

fn client(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(CLIENTS | (number & 0xFFFF) as u32)
}

/// Makes the tenants through the control API: each with rules that were pushed, and a hostname.
fn make(rig: &Rig, tenants: usize) -> Result<()> {
    let files = [rules(&rig.upstream.url)];
    let mut step = Step::start(format!("{tenants} tenants"));
    side_by_side(rig, tenants, &mut step, |_, number| {
        rig.control.tenant(HOME, &format!("many-{number}"), &host(number), &files)
    })?;
    step.done("");
    Ok(())
}

fn host(number: usize) -> String {
    format!("many-{number}.localhost")
}

fn rules(upstream: &str) -> File {
    let text = format!(
        "apiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: plain}}\n\
         spec: {{regions: {{{HOME}: \"{upstream}\"}}}}\n---\n\
         apiVersion: meridian/v1\nkind: Route\nmetadata: {{name: open}}\n\
         spec: {{match: {{path: \"/open/**\"}}, auth: {{mode: anonymous}}, upstream: plain}}\n"
    );
    ("rules.yaml".to_owned(), text)
}

/// Does something so many times, some at once; ends with the first error.
fn side_by_side(
    rig: &Rig,
    count: usize,
    step: &mut Step,
    work: impl Fn(&ureq::Agent, usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let error: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let failed = || error.lock().is_ok_and(|error| error.is_some());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let agent = agent();
                while !failed() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    if let Err(found) = rig.stop.check().and_then(|()| work(&agent, number))
                        && let Ok(mut error) = error.lock()
                    {
                        error.get_or_insert(found);
                    }
                }
            });
        }
        while next.load(Ordering::Relaxed) < count && !failed() {
            step.tick(&format!("{} of {count}", next.load(Ordering::Relaxed)));
            std::thread::sleep(POLL);
        }
    });
    match error.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error),
        Err(_) => Err(anyhow!("a thread has panicked")),
    }
}

/// As a part of the report.
pub fn report(held: &[Held], requests: usize) -> String {
    let first = |edge: Kind| held.iter().find(|one| one.edge == edge).map_or(f64::NAN, |one| one.look.mb);
    let row = |one: &Held| {
        vec![
            format!("{}, {}", one.edge.title(), one.what),
            format!("{:.0} ({:.0})", one.look.mb, one.look.anonymous_mb),
            format!("{:.2}", one.look.mb / first(one.edge)),
        ]
    };
    let rows: Vec<_> = held.iter().map(row).collect();
    let table = report::table(&["edge and whom it served", "MB", "to 2 tenants"], &rows);
    format!("\n## Memory\n{ABOUT}\n{table}\n{requests} requests each, {THREADS} at once.\n")
}

const ABOUT: &str = "
What the process of an edge holds (its proportional set size; in parentheses what is no page of a file) after as many requests
in each setting, by an edge that was started for it. Tenants were made through the control API, each with rules that were
pushed and a hostname; requests go round among them, or among the routes of the one tenant. A node keeps at most 1,000
tenants, 48 MiB of routes and 10,000 hostnames, those that were asked for last. Hostnames that it does not know it asks for at a
bounded rate: each request comes from a network of its own, and one that is refused for that (503) is repeated.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_in_networks_for_measurements() {
        assert_eq!(client(0), Ipv4Addr::new(198, 19, 0, 0));
        assert_eq!(client(99_999), Ipv4Addr::new(198, 19, 134, 159));
    }
}
