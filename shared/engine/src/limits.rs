//! Every limit of the engine, in one place. Reaching one is a clear outcome, never a panic.

/// Steps of one exchange.
pub const STEPS_MAX: u32 = 128;
/// How old the news of the origins may be before they are refreshed after a reply.
pub const SYNC_FRESH_MS: u64 = 500;
/// How old the news of the origins may be before a decision waits for newer.
pub const SYNC_STALE_MS: u64 = 1_000;
/// How long a decision waits for news.
pub const SYNC_WAIT_MS: u32 = 300;
/// After how long a question for news counts as lost, so that another exchange may ask.
pub const SYNC_LOST_MS: u64 = 2_000;
/// How long after no origin answered the next question goes out.
pub const SYNC_RETRY_MS: u64 = 500;
/// After how long a load counts as lost, so that another exchange may load.
pub const LOAD_WAIT_MS: u64 = 2_000;
/// How long after a load in vain the next one is tried.
pub const LOAD_RETRY_MS: u64 = 500;
/// Tenants in memory at once.
pub const TENANTS_MAX: usize = 1_000;
/// Bytes of all tenants' lists of addresses and of autonomous systems in memory at once.
pub const LIST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of one tenant's lists of addresses and of autonomous systems in memory: two million ranges of IPv4, half a million of
/// IPv6, or four million numbers.
pub const TENANT_LIST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of all tenants' routes in memory at once, as [`Route::bytes`](crate::ruleset::Route::bytes) counts them.
pub const ROUTE_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Bytes of one tenant's routes in memory, counted alike: 10,000 of 2.4 KiB.
pub const TENANT_ROUTE_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Places of the route index and routes there that the search for one request's route may have to look at.
pub const ROUTE_WORK_MAX: usize = 1_024;
/// Hostnames in memory at once that their tenants' rules name, and as many that a wildcard covers or whose rules are not at hand:
/// those push none of the others out.
pub const HOSTS_MAX: usize = 10_000;
/// Distance at which an origin is asked for hostnames that are not known, on average: 200 a second.
pub const HOST_ASK_MS: u64 = 5;
/// Hostnames that are asked for at once, after a while without.
pub const HOST_ASKS_MAX: u64 = 400;
/// The same distance for one client's network: 20 a second.
pub const HOST_ASK_CLIENT_MS: u64 = 50;
/// Hostnames that are asked for at once for one client's network.
pub const HOST_ASKS_CLIENT_MAX: u64 = 100;
/// Clients' networks whose questions are counted at once.
pub const HOST_ASK_CLIENTS_MAX: usize = 4_096;
/// How long it is believed whose a hostname is that its tenant's rules don't name.
pub const HOST_KNOWN_MS: u64 = 30_000;
/// Unknown hostnames in memory at once.
pub const UNKNOWN_HOSTS_MAX: usize = 2_000;
/// How long an unknown hostname is remembered.
pub const UNKNOWN_HOST_MS: u64 = 1_000;
/// Bytes of a key set.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Keys of a key set that are looked at.
pub const JWKS_KEYS_MAX: usize = 100;
/// Bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Depth of the JSON in a token.
pub const TOKEN_DEPTH_MAX: usize = 16;
/// Verified tokens in memory at once.
pub const TOKENS_REMEMBERED_MAX: usize = 10_000;
/// Counters of limits in memory at once, of all tenants; what a forgotten one is worth,
/// [`passed_max`](crate::policy::rate_limit::passed_max) says.
pub const LIMIT_KEYS_MAX: usize = 50_000;
/// Entries of the purge journal in memory at once; beyond it the oldest of tenants with more than an even share become one mark
/// of their tenant, "everything before".
pub const PURGES_MAX: usize = 50_000;
/// Tenants that have such a mark; beyond it all of these become one mark for everybody.
pub const PURGED_TENANTS_MAX: usize = 2_000;
/// How far back a region's purge journal answers an edge that reads it for the first time.
pub const PURGE_REACH_MS: u64 = 600_000;
/// How far ahead of an origin's clock the edge's is taken to be at most, where the time of a purge decides.
pub const PURGE_AHEAD_MS_MAX: u64 = 10_000;
/// Regions whose positions are kept for one purged tag; beyond it the time of the purge counts.
pub const PURGE_SOURCES_MAX: usize = 64;
/// Bytes of a request body that are kept for another attempt.
pub const REPLAY_BODY_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a body that is stored in the cache.
pub const CACHE_BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a cache key; a longer one is replaced by its hash.
pub const CACHE_KEY_BYTES_MAX: usize = 512;
/// Keys that one unsafe request has forgotten in the host's store; what its URIs have beyond them is marked stale all the same.
pub const CACHE_FORGET_MAX: usize = 32;
/// Attempts of one exchange, whatever the rule says.
pub const ATTEMPTS_MAX: u32 = 5;
/// Bytes of a method.
pub const METHOD_BYTES_MAX: usize = 32;
/// Header fields of a request.
pub const HEADER_FIELDS_MAX: usize = 128;
/// Bytes of a request's header fields together.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// How often a request may have been forwarded from here, as its `CDN-Loop` says (RFC 8586). One of a tenant may come back for
/// another, whose service is behind the same edges; more than a few are a loop.
pub const LOOPS_MAX: usize = 4;
/// Bytes of a hostname (RFC 1035, section 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;
/// Bytes of path and query together.
pub const URL_BYTES_MAX: usize = 16 * 1024;
/// Nodes that a search of the route index may visit, where the index itself has no more.
pub const ROUTE_VISITS_MIN: usize = 64;
/// Bytes of a session token.
pub const SESSION_BYTES_MAX: usize = 1024;
/// Regions in a session token.
pub const SESSION_POSITIONS_MAX: usize = 64;
/// Cache keys of which it is known at once that they are being fetched, or that what comes is for one request alone.
pub const FETCHES_MAX: usize = 2_000;
/// Requests that wait for one fetch of another request.
pub const COLLAPSE_JOINED_MAX: u32 = 256;
/// How long a request waits for the fetch of another one, and how long a fetch is waited for.
pub const COLLAPSE_WAIT_MS: u32 = 5_000;
/// How long a request for a range waits for the fetch of another one: of a long body each part would come late.
pub const COLLAPSE_RANGE_WAIT_MS: u32 = 250;
/// Shortest pause between two looks at whether the fetch of another request has ended.
pub const COLLAPSE_PAUSE_MS_MIN: u32 = 5;
/// Longest such pause; each is a quarter of the time waited so far.
pub const COLLAPSE_PAUSE_MS_MAX: u32 = 250;
/// How long after an answer that could not be stored nobody waits for another one of the same key.
pub const UNSHARED_MS: u64 = 5_000;
/// After how long a revalidation counts as lost.
pub const REVALIDATION_LOST_MS: u64 = 30_000;
/// Keys that an edge's own cookies are verified by, the one that signs among them.
pub const SIGNING_KEYS_MAX: usize = 16;
/// Experiments that a new unit's cookie names, so that they count once it has come back.
pub const EXPERIMENTS_GIVEN_MAX: usize = 12;
/// Steps of an expression's evaluation.
pub const EXPR_COST_MAX: u32 = 10_000;
/// Nesting of an expression, lists in values included.
pub const EXPR_DEPTH_MAX: u32 = 64;
/// Bits of an RSA key (RFC 7518, section 3.3).
pub const RSA_BITS_MIN: usize = 2_048;
/// Bits of an RSA key beyond which checking its signatures costs too much, and not every host's library does it.
pub const RSA_BITS_MAX: usize = 4_096;
/// The public exponent of RSA keys, 65537: the one that every host's library takes.
pub const RSA_EXPONENT: [u8; 3] = [1, 0, 1];
/// Key sets of issuers in memory at once.
pub const KEY_SETS_MAX: usize = 2_000;
/// How long a fetch of a key set may take.
pub const KEY_FETCH_TIMEOUT_MS: u32 = 5_000;
/// Pause after a failed fetch of a key set; doubles with each failure up to the rule's interval.
pub const KEY_FETCH_RETRY_MS: u64 = 1_000;
/// Exchanges that may wait for a fetch of a key set that is on its way.
pub const KEY_FETCH_JOINED_MAX: u32 = 64;
/// How long a fetch of a key set is waited for before it counts as lost.
pub const KEY_FETCH_LOST_MS: u64 = KEY_FETCH_TIMEOUT_MS as u64 + 1_000;
/// Differences between the clocks of exchanges up to this count as no time at all.
pub const CLOCK_JITTER_MS: u64 = 1_000;
/// Longest time, in nanoseconds, in which a whole burst comes back: 292 years. It is half of what their count holds, so that
/// what is owed and what a request costs never leave it together.
pub const LIMIT_DEPTH_NS_MAX: u64 = u64::MAX / 2;
/// Shortest life of a lease: hosts wait less for an authority's answer, and what has lapsed when it comes is not spent.
pub const LEASE_MS_MIN: u64 = 1_000;
/// Longest life of a lease.
pub const LEASE_MS_MAX: u64 = 5_000;
/// A lease is at most this part of what is left: one in so many.
pub const LEASE_SHARE: u32 = 32;
/// Units of a lease beyond what its request costs.
pub const LEASE_UNITS_MAX: u32 = 1_000;
/// How long an edge answers for an authority that said no before it asks again.
pub const LEASE_DENIED_MS_MAX: u64 = 1_000;
/// Services (origins and upstreams by region) of which is known at once how they do, and addresses whose health is.
pub const SERVICES_MAX: usize = 10_000;
/// How old news of a region's health and positions may be to count.
pub const NEWS_MS_MAX: u64 = 10_000;
/// Failures in a row that eject a service.
pub const EJECT_FAILURES: u32 = 3;
/// Length of the first ejection; doubles with each.
pub const EJECT_MS_MIN: u64 = 1_000;
/// Length of the longest ejection.
pub const EJECT_MS_MAX: u64 = 30_000;
/// How long after an ejection a service that answers is as good as new.
pub const EJECT_FORGIVE_MS: u64 = 60_000;
/// How long a request that tries an ejected service may take before another one does.
pub const PROBE_MS: u64 = 5_000;
/// Thousandths of a retry that each request pays for.
pub const RETRY_EACH_MILLI: u64 = 200;
/// Retries a second that nobody has to pay for.
pub const RETRY_FLOOR_PER_S: u64 = 3;
/// Retries that can be saved up.
pub const RETRY_TOKENS_MAX: u64 = 100;
/// Tags of a cache entry.
pub const CACHE_TAGS_MAX: usize = 128;
/// Bytes of a tag of a cache entry.
pub const CACHE_TAG_BYTES_MAX: usize = 256;
/// Groups of a cache entry, and those that one response makes stale. RFC 9875, section 2 wants 32 at least.
pub const CACHE_GROUPS_MAX: usize = 64;
/// Bytes of a group's name. RFC 9875, section 2 wants 32 at least.
pub const CACHE_GROUP_BYTES_MAX: usize = 128;
/// Header fields that a response may vary by.
pub const CACHE_VARY_MAX: usize = 16;
/// Sources whose positions a cache entry notes.
pub const CACHE_SEEN_MAX: usize = 64;
/// Longest time that anything is kept in the cache.
pub const CACHE_KEEP_MS_MAX: u64 = 30 * 86_400_000;
/// How long a response that can be validated is kept beyond its time.
pub const CACHE_VALIDATE_MS: u64 = 3_600_000;
/// Longest lifetime that is guessed (RFC 9111, section 4.2.2).
pub const CACHE_HEURISTIC_MS_MAX: u64 = 86_400_000;
/// How long a connection counts as in use after the head of its response, where no host says that it is not.
pub const CONNECTION_MS_MAX: u64 = 600_000;
/// Least time after which another region is asked beside the first.
pub const HEDGE_AFTER_MS_MIN: u32 = 10;
/// Last answers of a service that its percentile is of.
pub const LATENCY_RECENT_MAX: usize = 64;
/// Answers without which nothing is known of a service's percentile.
pub const LATENCY_RECENT_MIN: usize = 20;
/// Age at which a measured latency counts half.
pub const LATENCY_HALF_LIFE_MS: u64 = 20_000;
/// How much one more measurement counts, in thousandths.
pub const LATENCY_SAMPLE_MILLI: u64 = 200;
/// Fetches of a key set that fail in a row before the provider's metadata are asked again where it is.
pub const KEY_FETCH_MOVED: u32 = 3;
/// Longest URL that a provider's metadata may name.
pub const KEYS_URL_BYTES_MAX: usize = 2_048;
/// Bytes of a value that an expression puts into HTML.
pub const HTML_VALUE_BYTES_MAX: usize = 16 * 1024;
/// Addresses whose names are in memory at once.
pub const NAMES_MAX: usize = 4_096;
/// Addresses whose names are asked for at once.
pub const NAMES_ASKED_MAX: usize = 32;
/// Addresses around one another, of a /24 or of IPv6 a /48, whose names are asked for at once; of a /64 it is one.
pub const NAMES_ASKED_AROUND_MAX: usize = 4;
/// How long a name is asked for that nobody tells.
pub const NAME_ASK_MS: u64 = 10_000;
/// How long a name is believed, whatever the origin says.
pub const NAME_KEEP_MS_MAX: u64 = 3_600_000;
/// Bytes of a name (RFC 1035, section 2.3.4).
pub const NAME_BYTES_MAX: usize = 255;
/// Hits of injection rules that an explanation tells; all of them count.
pub const INJECTION_HITS_MAX: usize = 16;
/// Bytes of a request's body that are looked at, whatever a rule says.
pub const PEEK_BYTES_MAX: u32 = 128 * 1024;
/// Names and texts of a body that are looked at.
pub const INJECTION_BODY_VALUES_MAX: usize = 8_192;
/// Levels of lists and objects in a body of JSON.
pub const INJECTION_BODY_DEPTH_MAX: usize = 32;
/// Bytes of a text on either side of a trigger that an injection rule reads: the work of a search is bounded by this times the
/// length of the text, whatever the rule does.
pub const INJECTION_WINDOW_BYTES: usize = 4 * 1024;
/// Characters of a parameter's, field's or cookie's name in an explanation.
pub const INJECTION_NAME_CHARS_MAX: usize = 64;
