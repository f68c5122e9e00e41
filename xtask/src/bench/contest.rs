//! Servers that get the same requests in turn, and the tables of what each of them took.

use serde::Serialize;

use super::load::Outcome;
use crate::report::{self, Spread};

/// So many of the requests may come to the upstream or not, otherwise than meant, without being mentioned.
const DETOUR_SHARE_MAX: f64 = 0.02;

/// Which token a request carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Token {
    /// None.
    None,
    /// One HS256 token.
    Hs256,
    /// One ES256 token.
    Es256Same,
    /// An ES256 token that was not seen lately.
    Es256New,
}

/// One kind of request.
pub struct Cell {
    /// Its name in the tables.
    pub name: &'static str,
    /// What is asked for.
    pub path: &'static str,
    /// What it carries.
    pub token: Token,
    /// The right answer.
    pub status: u16,
    /// Whether the upstream answers.
    pub forwarded: bool,
    /// Servers that are asked for something else, or not at all.
    pub elsewhere: &'static [(&'static str, Option<&'static str>)],
}

impl Cell {
    /// A request that is the same for every server.
    pub const fn new(
        name: &'static str,
        path: &'static str,
        token: Token,
        status: u16,
        forwarded: bool,
    ) -> Self {
        Self { name, path, token, status, forwarded, elsewhere: &[] }
    }

    /// With servers that are asked for something else, or not at all.
    pub const fn elsewhere(self, elsewhere: &'static [(&'static str, Option<&'static str>)]) -> Self {
        Self { elsewhere, ..self }
    }

    /// What a server is asked for; nothing if it can't do it.
    pub fn path_on(&self, server: &Server) -> Option<&'static str> {
        let other = self.elsewhere.iter().find(|(name, _)| *name == server.name);
        other.map_or(Some(self.path), |(_, path)| *path)
    }
}

/// One of the servers.
pub struct Server {
    /// Its name: that of its process, or of the stack's edge.
    pub name: &'static str,
    /// Its name in the tables.
    pub title: &'static str,
    /// Whether it is Meridian.
    pub ours: bool,
}

/// Who is measured, and by what. Each server of ours is compared with each of the others.
pub struct Contest {
    /// The servers.
    pub servers: &'static [Server],
    /// The requests.
    pub cells: &'static [Cell],
    /// Indices of the cells that every server answers for a while before the first round.
    pub warm_up: &'static [usize],
}

/// One cell of one server in one round.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// From 1.
    pub round: u32,
    /// Name of the server.
    pub server: &'static str,
    /// Name of the cell.
    pub cell: &'static str,
    /// What came back.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Requests that came to the upstream, as a share of those that were sent.
    pub forwarded: f64,
    /// Answers of a status that was not expected, and requests that got none.
    pub wrong: u64,
}

/// Everything that was measured.
pub struct Results {
    /// Who and by what.
    pub contest: &'static Contest,
    /// In the order of measuring.
    pub measured: Vec<Measurement>,
}

impl Results {
    fn of<'a>(&'a self, server: &'a Server, cell: &'a Cell) -> impl Iterator<Item = &'a Measurement> {
        self.measured.iter().filter(move |one| one.server == server.name && one.cell == cell.name)
    }

    /// What a server of ours costs beside another, round by round.
    pub fn ratio(&self, ours: &Server, other: &Server, cell: &Cell) -> Option<Spread> {
        Spread::of(self.of(ours, cell).filter_map(|one| {
            let beside = self.of(other, cell).find(|beside| beside.round == one.round)?;
            Some(one.outcome.server_us / beside.outcome.server_us)
        }))
    }

    /// Who is compared with whom: ours, the other one.
    fn pairs(&self) -> Vec<(&'static Server, &'static Server)> {
        let servers = self.contest.servers;
        servers.iter().enumerate().flat_map(|(at, server)| beside(server, &servers[..at])).collect()
    }

    /// Processor time of each server in each cell, and the ratios.
    pub fn cost_table(&self) -> String {
        let servers = self.contest.servers;
        let text =
            |spread: Option<Spread>, digits| spread.map_or("–".to_owned(), |spread| spread.text(digits));
        let cost = |server: &Server, cell: &Cell| {
            text(Spread::of(self.of(server, cell).map(|one| one.outcome.server_us)), 1)
        };
        let mut head = vec!["request".to_owned()];
        let mut rows: Vec<Vec<String>> =
            self.contest.cells.iter().map(|cell| vec![cell.name.to_owned()]).collect();
        for (at, server) in servers.iter().enumerate() {
            let pairs = beside(server, &servers[..at]);
            head.push(server.title.to_owned());
            head.extend(pairs.iter().map(|(_, other)| match pairs.len() {
                1 => "ratio".to_owned(),
                _ => format!("to {}", other.title),
            }));
            for (row, cell) in rows.iter_mut().zip(self.contest.cells) {
                row.push(cost(server, cell));
                row.extend(pairs.iter().map(|(ours, other)| text(self.ratio(ours, other, cell), 2)));
            }
        }
        report::table(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
    }

    /// Requests a second.
    pub fn rate_table(&self) -> String {
        let servers = self.contest.servers;
        let head: Vec<&str> =
            std::iter::once("request").chain(servers.iter().map(|server| server.title)).collect();
        let rows = self.contest.cells.iter().map(|cell| {
            let rates = servers.iter().map(|server| {
                let rates = self.of(server, cell);
                let spread = Spread::of(rates.map(|one| one.outcome.requests as f64 / one.outcome.seconds));
                spread.map_or("–".to_owned(), |spread| format!("{:.0}", spread.median))
            });
            std::iter::once(cell.name.to_owned()).chain(rates).collect()
        });
        report::table(&head, &rows.collect::<Vec<_>>())
    }

    /// Every cell that costs us more than another server, the worst first. Said by the numbers, not by us.
    pub fn behind(&self) -> String {
        let mut text = String::new();
        for (ours, other) in self.pairs() {
            let ratios =
                self.contest.cells.iter().filter_map(|cell| Some((cell, self.ratio(ours, other, cell)?)));
            let (mut worse, better): (Vec<_>, Vec<_>) = ratios.partition(|(_, ratio)| ratio.median > 1.0);
            worse.sort_by(|(_, a), (_, b)| b.median.total_cmp(&a.median));
            let list: Vec<String> =
                worse.iter().map(|(cell, ratio)| format!("{} ({:.2}×)", cell.name, ratio.median)).collect();
            let (title, beside, all) = (ours.title, other.title, worse.len() + better.len());
            text.push_str(&match worse.len() {
                0 => format!("- **{title}** costs no more than {beside} in any of {all} cells.\n"),
                count => {
                    let list = list.join("; ");
                    format!("- **{title}** costs more than {beside} in {count} of {all} cells: {list}.\n")
                }
            });
        }
        text.push_str(&self.detours());
        text
    }

    /// Where more or fewer requests came to the upstream than the cell is meant to send there.
    fn detours(&self) -> String {
        let mut text = String::new();
        for server in self.contest.servers {
            for cell in self.contest.cells {
                let expected = if cell.forwarded { 1.0 } else { 0.0 };
                let Some(share) = Spread::of(self.of(server, cell).map(|one| one.forwarded)) else {
                    continue;
                };
                if (share.median - expected).abs() > DETOUR_SHARE_MAX {
                    let (found, expected) = (share.median * 100.0, expected * 100.0);
                    let (title, name) = (server.title, cell.name);
                    text.push_str(&format!(
                        "- **{title}**, {name}: {found:.0} % of the requests came to the upstream, not {expected:.0} %.\n"
                    ));
                }
            }
        }
        text
    }

    /// What else was busy, as sentences.
    pub fn surroundings(&self) -> String {
        let others = Spread::of(self.measured.iter().map(|one| one.outcome.other_cores));
        let forwarded = self.contest.cells.iter().filter(|cell| cell.forwarded);
        let names: Vec<&str> = forwarded.map(|cell| cell.name).collect();
        let upstream = self.measured.iter().filter(|one| names.contains(&one.cell));
        let upstream = Spread::of(upstream.map(|one| one.outcome.upstream_us));
        format!(
            "Cores busy with anything else (origins, databases, other programs of this machine): {}. {} \
             The upstream's own processor time, not in the tables: {} µs a forwarded request.\n",
            others.map_or(String::new(), |spread| spread.text(2)),
            report::load(),
            upstream.map_or(String::new(), |spread| spread.text(1)),
        )
    }

    /// How many answers were not those expected.
    pub fn wrong(&self) -> u64 {
        self.measured.iter().map(|one| one.wrong).sum()
    }

    /// How many answers were not those expected, and whose.
    pub fn wrong_answers(&self) -> String {
        let all: u64 = self.measured.iter().map(|one| one.outcome.requests).sum();
        let mut text = format!("Wrong answers: {} of {all}.\n", self.wrong());
        for one in self.measured.iter().filter(|one| one.wrong > 0) {
            let Measurement { round, server, cell, outcome, wrong, .. } = one;
            let (lost, status) = (outcome.lost, wrong - outcome.lost);
            text.push_str(&format!(
                "- round {round}, {server}, {cell}: {status} of another status, {lost} without an answer\n"
            ));
        }
        text
    }
}

/// A server beside those before it that it is compared with: ours, the other one.
fn beside(server: &'static Server, before: &'static [Server]) -> Vec<(&'static Server, &'static Server)> {
    let others = before.iter().filter(|other| other.ours != server.ours);
    others.map(|other| if server.ours { (server, other) } else { (other, server) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONTEST: Contest = Contest {
        servers: &[
            Server { name: "spin", title: "Meridian", ours: true },
            Server { name: "quick", title: "Quick", ours: false },
            Server { name: "blind", title: "Blind", ours: false },
        ],
        cells: &[
            Cell::new("pass", "/open/items", Token::None, 200, true),
            Cell::new("token", "/auth/items", Token::Hs256, 200, true).elsewhere(&[("blind", None)]),
        ],
        warm_up: &[],
    };

    fn measurement(round: u32, server: usize, cell: usize, server_us: f64) -> Measurement {
        let outcome = Outcome { requests: 100, seconds: 1.0, server_us, ..Outcome::default() };
        let (server, cell) = (CONTEST.servers[server].name, CONTEST.cells[cell].name);
        Measurement { round, server, cell, outcome, forwarded: 1.0, wrong: 0 }
    }

    fn results() -> Results {
        let measured = vec![
            measurement(1, 0, 0, 30.0),
            measurement(1, 1, 0, 20.0),
            measurement(1, 2, 0, 60.0),
            measurement(1, 0, 1, 40.0),
            measurement(1, 1, 1, 20.0),
            measurement(2, 0, 1, 90.0),
            measurement(2, 1, 1, 30.0),
        ];
        Results { contest: &CONTEST, measured }
    }

    #[test]
    fn a_ratio_is_of_the_same_round_and_ours_is_above() {
        let results = results();
        let [ours, quick, blind] = CONTEST.servers else { panic!("three servers") };
        let ratio = results.ratio(ours, quick, &CONTEST.cells[1]).unwrap();
        assert_eq!((ratio.min, ratio.max), (2.0, 3.0));
        assert!(results.ratio(ours, blind, &CONTEST.cells[1]).is_none());
        let pairs: Vec<_> =
            results.pairs().into_iter().map(|(ours, other)| (ours.name, other.name)).collect();
        assert_eq!(pairs, [("spin", "quick"), ("spin", "blind")]);
    }

    #[test]
    fn what_a_server_cannot_do_is_a_dash() {
        assert_eq!(CONTEST.cells[1].path_on(&CONTEST.servers[2]), None);
        assert_eq!(CONTEST.cells[1].path_on(&CONTEST.servers[1]), Some("/auth/items"));
        let table = results().cost_table();
        let row = table.lines().find(|line| line.starts_with("| token")).unwrap();
        assert!(row.ends_with("| 2.50 (2.00–3.00) | – | – |"), "{row}");
    }

    #[test]
    fn ours_is_compared_with_each_of_the_others() {
        static OTHERS_FIRST: Contest = Contest {
            servers: &[
                Server { name: "whole", title: "Whole", ours: false },
                Server { name: "lean", title: "Lean", ours: false },
                Server { name: "edge", title: "Meridian", ours: true },
            ],
            cells: &[Cell::new("pass", "/open/items", Token::None, 200, true)],
            warm_up: &[],
        };
        let measured = OTHERS_FIRST.servers.iter().zip([20.0, 10.0, 30.0]).map(|(server, server_us)| {
            let outcome = Outcome { requests: 100, seconds: 1.0, server_us, ..Outcome::default() };
            Measurement { round: 1, server: server.name, cell: "pass", outcome, forwarded: 1.0, wrong: 0 }
        });
        let results = Results { contest: &OTHERS_FIRST, measured: measured.collect() };
        let table = results.cost_table();
        assert!(table.starts_with("| request | Whole | Lean | Meridian | to Whole | to Lean |"), "{table}");
        assert!(table.contains("| 1.50 (1.50–1.50) | 3.00 (3.00–3.00) |"), "{table}");
        assert_eq!(results.behind().lines().count(), 2, "{}", results.behind());
    }

    #[test]
    fn where_we_are_behind_the_worst_comes_first() {
        let text = results().behind();
        assert_eq!(
            text,
            "- **Meridian** costs more than Quick in 2 of 2 cells: token (2.50×); pass (1.50×).\n\
             - **Meridian** costs no more than Blind in any of 1 cells.\n"
        );
    }

    #[test]
    fn a_detour_and_a_wrong_answer_are_told() {
        let mut results = results();
        results.measured[1].forwarded = 0.5;
        results.measured[1].wrong = 3;
        assert!(
            results
                .behind()
                .contains("- **Quick**, pass: 50 % of the requests came to the upstream, not 100 %.")
        );
        assert_eq!(results.wrong(), 3);
        assert!(
            results
                .wrong_answers()
                .contains("- round 1, quick, pass: 3 of another status, 0 without an answer")
        );
    }
}
