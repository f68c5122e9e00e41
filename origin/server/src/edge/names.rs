//! Names of addresses, for edges that verify crawlers by them: the name in DNS, confirmed by its having the address
//! (RFC 1912, section 2.1). Nobody waits for a lookup: an edge asks again until the answer is there. Whatever edges ask
//! for, lookups are bounded in number, at once and by the second, and their answers in number and time.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use meridian_wire::sync::NameEntry;
use moka::sync::Cache;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;

use crate::limits::{
    NAME_AGAIN, NAME_KEEP, NAME_LOOKUP_TIMEOUT, NAME_LOOKUPS_MAX, NAME_LOOKUPS_PER_S, NAME_SERVER_TIMEOUT,
    NAMES_OF_ADDRESS_MAX, NAMES_REMEMBERED_MAX,
};

/// What became of questions.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Lookups that were begun.
    pub lookups: Counter,
    /// Questions that found no room.
    pub refused: Counter,
}

/// What is known of the names of addresses.
#[derive(Clone)]
pub struct Names {
    /// None where no name server is known.
    resolver: Option<Arc<TokioResolver>>,
    known: Cache<IpAddr, Known>,
    lookups: Arc<Semaphore>,
    /// When the present second began, and how many lookups were begun in it.
    pace: Arc<Mutex<(Instant, u32)>>,
    /// What became of questions.
    pub counts: Counts,
}

/// What is known of one address.
#[derive(Clone, Debug)]
enum Known {
    /// It is being looked up, or can't be for a moment.
    Open { until: Instant },
    /// It has this name, or none.
    Found { name: Option<Arc<str>>, until: Instant },
}

impl Names {
    /// Nothing is known. Asked are these name servers; without any, those of the operating system.
    #[must_use]
    pub fn new(servers: &[SocketAddr]) -> Self {
        // What is known is kept here, and only what name servers say is a name that crawlers have.
        let resolver = resolver(servers, |options| {
            options.cache_size = 0;
            options.use_hosts_file = ResolveHosts::Never;
        });
        let resolver = resolver.inspect_err(|error| {
            tracing::warn!(%error, "no name server is known: crawlers stay unverified");
        });
        Self {
            resolver: resolver.ok().map(Arc::new),
            known: Cache::builder().max_capacity(NAMES_REMEMBERED_MAX).time_to_live(NAME_KEEP).build(),
            lookups: Arc::new(Semaphore::new(NAME_LOOKUPS_MAX)),
            pace: Arc::new(Mutex::new((Instant::now(), 0))),
            counts: Counts::default(),
        }
    }

    /// What is known of these addresses; what is not is looked up meanwhile, as far as there is room.
    pub fn of(&self, addresses: &[IpAddr]) -> Vec<NameEntry> {
        let now = Instant::now();
        let mut entries = Vec::new();
        for address in addresses {
            match self.known.get(address) {
                Some(Known::Found { name, until }) if now < until => entries.push(NameEntry {
                    address: *address,
                    name: name.as_deref().map(str::to_owned),
                    keep_ms: u64::try_from((until - now).as_millis()).unwrap_or(u64::MAX),
                }),
                Some(Known::Open { until }) if now < until => {}
                _ => self.look_up(*address, now),
            }
        }
        entries
    }

    fn look_up(&self, address: IpAddr, now: Instant) {
        let Some(resolver) = self.resolver.clone() else { return };
        let permit = Arc::clone(&self.lookups).try_acquire_owned().ok().filter(|_| self.has_pace(now));
        let Some(permit) = permit else {
            self.counts.refused.inc();
            return;
        };
        self.counts.lookups.inc();
        // Long enough that a question that is asked again begins no second lookup.
        self.known.insert(address, Known::Open { until: now + NAME_LOOKUP_TIMEOUT + NAME_AGAIN });
        let known = self.known.clone();
        tokio::spawn(async move {
            let found = tokio::time::timeout(NAME_LOOKUP_TIMEOUT, confirmed(&resolver, address)).await;
            let now = Instant::now();
            let entry = match found {
                Ok(Ok(name)) => Known::Found { name: name.map(Arc::from), until: now + NAME_KEEP },
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a name could not be looked up");
                    Known::Open { until: now + NAME_AGAIN }
                }
                Err(_) => Known::Open { until: now + NAME_AGAIN },
            };
            known.insert(address, entry);
            drop(permit);
        });
    }

    fn has_pace(&self, now: Instant) -> bool {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(pace.0) >= Duration::from_secs(1) {
            *pace = (now, 0);
        }
        pace.1 += 1;
        pace.1 <= NAME_LOOKUPS_PER_S
    }
}

/// Asks these name servers; without any, those of the operating system.
///
/// # Errors
/// Where none is known.
pub(crate) fn resolver(
    servers: &[SocketAddr],
    change: impl FnOnce(&mut ResolverOpts),
) -> Result<TokioResolver, NetError> {
    let mut builder = builder(servers)?;
    let options = builder.options_mut();
    options.timeout = NAME_SERVER_TIMEOUT;
    options.attempts = 2;
    change(options);
    builder.build()
}

fn builder(servers: &[SocketAddr]) -> Result<ResolverBuilder<TokioRuntimeProvider>, NetError> {
    if servers.is_empty() {
        return TokioResolver::builder_tokio();
    }
    let server = |address: &SocketAddr| {
        let connection = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let connections = vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
        NameServerConfig::new(address.ip(), true, connections)
    };
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
    Ok(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
}

/// The first name of an address that has the address itself; none where there is no such name.
async fn confirmed(resolver: &TokioResolver, address: IpAddr) -> Result<Option<String>, NetError> {
    let names = there_or_not(resolver.lookup(Name::from(address), RecordType::PTR).await)?;
    let kind = if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
    let names =
        names.iter().filter_map(|data| if let RData::PTR(name) = data { Some(name.0.clone()) } else { None });
    for name in names.take(NAMES_OF_ADDRESS_MAX) {
        let addresses = there_or_not(resolver.lookup(name.clone(), kind).await)?;
        if addresses.iter().any(|data| data.ip_addr() == Some(address)) {
            return Ok(Some(name.to_ascii().trim_end_matches('.').to_ascii_lowercase()));
        }
    }
    Ok(None)
}

/// What is there; nothing where a name server says that nothing is.
fn there_or_not(answer: Result<hickory_resolver::lookup::Lookup, NetError>) -> Result<Vec<RData>, NetError> {
    match answer {
        Ok(lookup) => Ok(lookup.answers().iter().map(|record| record.data.clone()).collect()),
        Err(error) if error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
