//! Every limit of the serialised shapes, in one place. Reaching one is an error that names it.

/// Bytes of a bundle. Nearly all of a large one are lists of a security policy, or routes: 10,000 of 800 bytes.
pub const BUNDLE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Documents of a bundle.
pub const DOCUMENTS_MAX: usize = 14_000;
/// `Route` documents of a bundle. What they take in an edge's memory is bounded by
/// [`TENANT_ROUTE_BYTES_MAX`](meridian_engine::limits::TENANT_ROUTE_BYTES_MAX), the work of finding one by
/// [`ROUTE_WORK_MAX`](meridian_engine::limits::ROUTE_WORK_MAX).
pub const ROUTES_MAX: usize = 10_000;
/// `Region` documents of a bundle.
pub const REGIONS_MAX: usize = 64;
/// Base URLs of a region's origin.
pub const ORIGIN_URLS_MAX: usize = 4;
/// `Domain` documents of a bundle.
pub const DOMAINS_MAX: usize = 1_000;
/// Limits of a tenant's plan: each is counted on every request.
pub const PLAN_LIMITS_MAX: usize = 4;
/// Goals of one experiment.
pub const GOALS_MAX: usize = 20;
/// Documents of any other kind in a bundle.
pub const KIND_MAX: usize = 500;
/// Entries of any list or map in a document.
pub const ENTRIES_MAX: usize = 1_000;
/// Entries of a list in a `Security` document; longer lists are files of their own.
pub const NETWORKS_MAX: usize = 50_000;
/// Characters of the word by which a crawler of a tenant's own is known.
pub const CRAWLER_AGENT_CHARS_MIN: usize = 5;
/// Header fields that an injection policy adds to those that are looked at.
pub const INSPECTED_HEADERS_MAX: usize = 64;
/// Expressions in the key of one cache policy.
pub const KEY_VALUES_MAX: usize = 16;
/// `Segment` documents of a bundle: each signed context evaluates them all.
pub const SEGMENTS_MAX: usize = 32;
/// Changes to HTML of one `Transform` document.
pub const HTML_RULES_MAX: usize = 64;
/// Bytes of a CSS selector.
pub const SELECTOR_BYTES_MAX: usize = 1024;
/// Bytes that a `Transform` document may ask of content before it is coded.
pub const CODED_BYTES_MIN_MAX: u32 = 1024 * 1024;
/// Bytes of a tenant's slug or a region's id: a label of a hostname (RFC 1035, section 2.3.4).
pub const SLUG_BYTES_MAX: usize = 63;
/// Characters of a document's name.
pub const NAME_CHARS_MAX: usize = 253;
/// Segments of a route's path.
pub const PATH_SEGMENTS_MAX: usize = 32;
/// Levels of an expression's tree.
pub const EXPR_DEPTH_MAX: usize = 24;
/// Levels of brackets in an expression's text: the parser's stack grows by each.
pub const EXPR_NESTING_MAX: u16 = 12;
/// Nodes of an expression's tree.
pub const EXPR_NODES_MAX: usize = 500;
/// Bytes of an expression's text.
pub const EXPR_BYTES_MAX: usize = 4 * 1024;
/// The longest time that a document may name: 366 days.
pub const DURATION_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;
/// Header fields that an `Upstream` document sets.
pub const UPSTREAM_HEADERS_MAX: usize = 32;
/// Connections in use at once that an `Upstream` document may allow.
pub const CONNECTIONS_MAX: u32 = 10_000;
/// Bytes of a header field's value.
pub const FIELD_VALUE_BYTES_MAX: usize = 4_096;
/// `Upstream` documents of a bundle that have a health check.
pub const HEALTH_CHECKS_MAX: usize = 50;
/// Bytes of a health check's path.
pub const CHECK_PATH_BYTES_MAX: usize = 1024;
/// The shortest time between health checks that a document may name.
pub const CHECK_INTERVAL_MS_MIN: u64 = 1_000;
/// The longest.
pub const CHECK_INTERVAL_MS_MAX: u64 = 5 * 60 * 1000;
/// The shortest time that a document may give a health check.
pub const CHECK_TIMEOUT_MS_MIN: u64 = 100;
/// The longest: an origin makes a bounded number of checks at once, of all tenants together.
pub const CHECK_TIMEOUT_MS_MAX: u64 = 10_000;
/// Health checks in a row that a document may wait for.
pub const CHECKS_IN_A_ROW_MAX: u32 = 10;
/// `Function` documents of a bundle.
pub const FUNCTIONS_MAX: usize = 32;
/// Bytes of a function's component.
pub const COMPONENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of all components of a push.
pub const COMPONENTS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The least memory that a `Function` document may give a request.
pub const FUNCTION_MEMORY_BYTES_MIN: u64 = 1024 * 1024;
/// The most.
pub const FUNCTION_MEMORY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The least processor time that a `Function` document may give a request.
pub const FUNCTION_CPU_MS_MIN: u64 = 10;
/// The most.
pub const FUNCTION_CPU_MS_MAX: u64 = 1_000;
/// The shortest time that a `Function` document may give a request.
pub const FUNCTION_TIMEOUT_MS_MIN: u64 = 10;
/// The longest.
pub const FUNCTION_TIMEOUT_MS_MAX: u64 = 60_000;
/// Bytes that an `Upstream` document may let a response have.
pub const RESPONSE_BYTES_MAX: u64 = 1 << 40;
/// The shortest pause in a body that an `Upstream` document may call too long.
pub const BODY_TIMEOUT_MS_MIN: u64 = 100;
/// The longest.
pub const BODY_TIMEOUT_MS_MAX: u64 = 10 * 60 * 1000;
/// Entries of an issuer's list of revoked tokens.
pub const REVOKED_MAX: usize = 10_000;
/// Inline keys of one issuer.
pub const ISSUER_KEYS_MAX: usize = 32;
/// Bytes of one inline key.
pub const KEY_BYTES_MAX: usize = 1024;
/// Bytes of a ticket.
pub const TICKET_BYTES_MAX: usize = 2 * 1024;

/// Bytes of a signed context.
pub const CONTEXT_BYTES_MAX: usize = 16 * 1024;
/// How old a context may be.
pub const CONTEXT_AGE_MS_MAX: u64 = 30_000;
/// How far in the future a context may be made, for clocks that differ.
pub const CONTEXT_AHEAD_MS_MAX: u64 = 5_000;
/// Bytes of a session token.
pub const SESSION_BYTES_MAX: usize = 2 * 1024;
/// Regions of a session token.
pub const SESSION_REGIONS_MAX: usize = 64;
/// Keys of a keyring: as many as an edge verifies its cookies by.
pub const KEYS_MAX: usize = meridian_engine::limits::SIGNING_KEYS_MAX;
/// Characters of a key's id.
pub const KEY_ID_CHARS_MAX: usize = 64;

/// Origins that an edge knows at its start.
pub const EDGE_ORIGINS_MAX: usize = 64;
/// Networks of an edge's trusted proxies.
pub const TRUSTED_PROXIES_MAX: usize = 64;
/// Targets of one sync.
pub const SYNC_TARGETS_MAX: usize = 2_000;
/// Addresses in one question for news.
pub const SYNC_ADDRESSES_MAX: usize = meridian_engine::limits::NAMES_ASKED_MAX;
/// Unhealthy upstreams of one region in an answer to a sync; what is beyond counts as healthy.
pub const SYNC_UNHEALTHY_MAX: usize = 1_000;
/// Purges in one answer to a sync; an edge that is further behind asks again.
pub const SYNC_PURGES_MAX: usize = 5_000;
/// Events and faults of one batch.
pub const EVENTS_MAX: usize = 500;
/// Events that wait at an edge at once; newer ones are counted and dropped.
pub const EVENTS_QUEUED_MAX: usize = 2_000;
/// Faults that wait at an edge at once; they all fit into one batch.
pub const FAULTS_QUEUED_MAX: usize = 50;
/// Bytes of a batch of events.
pub const EVENTS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Units that one lease may ask for; of a request that costs more, its cost.
pub const LEASE_AMOUNT_MAX: u32 = 1_000_000;

/// Files of a push.
pub const FILES_MAX: usize = 500;
/// Bytes of a file of documents.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of all files of documents of a push.
pub const FILES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of all lists of networks and of autonomous systems of a push.
pub const LISTS_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Networks of a file that lists them.
pub const LIST_NETWORKS_MAX: usize = 1_000_000;
/// Numbers of a file that lists autonomous systems.
pub const LIST_ASNS_MAX: usize = 1_000_000;
/// Documents of a file.
pub const FILE_DOCUMENTS_MAX: usize = 1_000;
/// Values of a file, those that aliases repeat included.
pub const FILE_NODES_MAX: usize = 200_000;
/// Levels of a file.
pub const FILE_DEPTH_MAX: usize = 32;
/// Aliases and anchors of a file.
pub const ALIASES_MAX: usize = 200;
/// Errors that are reported at once.
pub const INVALID_MAX: usize = 100;
/// Warnings that are told at once.
pub const WARNINGS_MAX: usize = 100;
/// `RuleTest` documents of a push.
pub const TESTS_MAX: usize = 1_000;
/// Steps of one test's exchange.
pub const TRIAL_STEPS_MAX: usize = 128;
