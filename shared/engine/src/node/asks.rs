//! How often it is asked whose a hostname is. Anybody can name as many as they like, below a name that is served as well, and
//! each that is not known here costs an origin a question: what a wildcard covers may be somebody else's by its very name,
//! so that nothing but a question tells.

use std::net::IpAddr;

use crate::bounded::{Bounded, Keyed};
use crate::facts::network_of;
use crate::limits::{
    HOST_ASK_CLIENT_MS, HOST_ASK_CLIENTS_MAX, HOST_ASK_MS, HOST_ASKS_CLIENT_MAX, HOST_ASKS_MAX,
};

/// Questions for hostnames. Each ends within the time that its host gives it, so that a bound on how many begin is one on how
/// many are out.
#[derive(Debug)]
pub(super) struct HostAsks {
    all: Pace,
    /// By the client's network: what one asks for is not taken from the others.
    by_client: Bounded<IpAddr, Pace>,
}

impl HostAsks {
    pub(super) fn new(keyed: Keyed) -> Self {
        Self { all: Pace::default(), by_client: Bounded::new(HOST_ASK_CLIENTS_MAX, keyed) }
    }

    /// Whether a hostname may be asked for now for this client; it counts as asked then.
    pub(super) fn take(&mut self, client: IpAddr, now_ms: u64) -> bool {
        let of_client = self.by_client.get_or_insert_with(network_of(client), Pace::default);
        let next = of_client.next(HOST_ASK_CLIENT_MS, HOST_ASKS_CLIENT_MAX, now_ms);
        let Some((of_this, of_all)) = next.zip(self.all.next(HOST_ASK_MS, HOST_ASKS_MAX, now_ms)) else {
            return false;
        };
        *of_client = of_this;
        self.all = of_all;
        true
    }
}

/// One after the other at even distances, and some of them ahead of their time.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// When the last would have been due.
    due_ms: u64,
}

impl Pace {
    /// After one more, if it may come now.
    fn next(self, each_ms: u64, ahead_max: u64, now_ms: u64) -> Option<Self> {
        let ahead_ms_max = each_ms.saturating_mul(ahead_max);
        let latest_ms = now_ms.saturating_add(ahead_ms_max);
        // What is further ahead was noted before the clock was set back.
        let last_ms = if self.due_ms > latest_ms { now_ms } else { self.due_ms.max(now_ms) };
        let due_ms = last_ms.saturating_add(each_ms);
        (due_ms <= latest_ms).then_some(Self { due_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn client(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    fn taken(asks: &mut HostAsks, clients: impl Iterator<Item = IpAddr>, now_ms: u64) -> u64 {
        clients.map(|client| u64::from(asks.take(client, now_ms))).sum()
    }

    #[test]
    fn one_client_has_its_own_share_and_leaves_the_others_theirs() {
        let mut asks = HostAsks::new(Keyed::default());
        let network = |part: u128| IpAddr::from(((0x2001_0db8 << 96) | part).to_be_bytes());
        assert_eq!(
            taken(&mut asks, (0..100_000).map(network), NOW),
            HOST_ASKS_CLIENT_MAX,
            "a /64 is one client"
        );
        assert!(asks.take(client(1), NOW), "another one may still ask");
        assert!(asks.take(network(0), NOW + HOST_ASK_CLIENT_MS));
        assert!(!asks.take(network(1), NOW + HOST_ASK_CLIENT_MS));
    }

    #[test]
    fn however_many_clients_there_are_an_origin_is_asked_no_more_than_so_often() {
        let mut asks = HostAsks::new(Keyed::default());
        assert_eq!(taken(&mut asks, (0..100_000).map(client), NOW), HOST_ASKS_MAX);
        assert_eq!(taken(&mut asks, (0..100_000).map(client), NOW + 1_000), 1_000 / HOST_ASK_MS);
        assert!(asks.by_client.len() <= HOST_ASK_CLIENTS_MAX);
    }

    #[test]
    fn a_clock_set_back_stops_no_question() {
        let mut asks = HostAsks::new(Keyed::default());
        taken(&mut asks, (0..100_000).map(client), NOW);
        assert!(!asks.take(client(1), NOW));
        assert!(asks.take(client(1), NOW - 3_600_000));
    }
}
