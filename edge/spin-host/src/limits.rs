//! Every limit of the host but those of HTTP itself, which are in `meridian_edge_http::limits`. Options of the command line change
//! those that operators need to change.

use std::time::Duration;

/// Bytes of a manifest.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Components of an application.
pub const COMPONENTS_MAX: usize = 64;
/// Bytes of a component's source file.
pub const SOURCE_BYTES_MAX: u64 = 128 << 20;
/// Bytes of all files that are mounted into one component.
pub const MOUNT_BYTES_MAX: u64 = 512 << 20;
/// Files that are mounted into one component.
pub const MOUNT_FILES_MAX: usize = 10_000;
/// Compiled components that are kept on disk; the oldest go first.
pub const COMPILED_FILES_MAX: usize = 8;

/// Requests that one instance answers before it is replaced. Spin 4.1's default is 128; a new instance has to ask the
/// origins for rules and leases again, so that a longer life costs less and loses fewer units of a lease.
pub const INSTANCE_REQUESTS_MAX: usize = 10_000;
/// Requests that one instance answers at the same time (Spin 4.1's default).
pub const INSTANCE_REQUESTS_AT_ONCE_MAX: usize = 16;
/// How long a request waits for those before it to be given to an instance: longer than an instance takes to be made, and
/// no longer than one that is stuck may cost others.
pub const TURN_TIMEOUT: Duration = Duration::from_millis(100);
/// Instances of all components that may exist at the same time.
pub const INSTANCES_MAX: u32 = 1_000;
/// Requests in progress, over all connections; it leaves instances free for those that are being torn down.
pub const REQUESTS_IN_PROGRESS_MAX: usize = 800;
/// Linear memory of one instance.
pub const INSTANCE_MEMORY_BYTES_MAX: usize = 128 << 20;
/// Elements of one table of an instance.
pub const INSTANCE_TABLE_ELEMENTS_MAX: usize = 100_000;
/// How long a request may take until the component has answered with a head, from the last it got of the body on.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a component may compute without waiting for anything.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a computing component is interrupted to let others run.
pub const EPOCH_TICK: Duration = Duration::from_millis(10);
/// How long an instance may work on after its last answer, streaming bodies included.
pub const POST_RETURN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an instance without work is kept.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Functions that are kept ready to run; those that were not used for the longest time go first.
pub const FUNCTIONS_READY_MAX: usize = 128;
/// Compiled functions that are kept on disk.
pub const FUNCTION_FILES_MAX: usize = 128;
/// How long a request waits for others' functions to be compiled.
pub const FUNCTION_COMPILE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that are in functions at the same time, until their bodies have passed.
pub const FUNCTIONS_AT_ONCE_MAX: usize = 400;
/// Requests that are in functions of one tenant at the same time.
pub const TENANT_FUNCTIONS_AT_ONCE_MAX: usize = 50;

/// Connections of clients that are open at the same time.
pub const CONNECTIONS_MAX: usize = 16_000;
/// Files that the process needs beside one for each connection: those of stores, of the runtime, and connections of its own.
pub const FILES_BESIDE_CONNECTIONS: usize = 2_048;
/// Connections beyond those that are told so at the same time; more of them are closed without a word.
pub const REFUSALS_AT_ONCE_MAX: usize = 64;
/// Time between two lines of the log about what clients or components cause.
pub const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a connection that was told to go may take to do so.
pub const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a request's body.
pub const BODY_BYTES_MAX: u64 = 64 << 20;
/// How long a request's head may take from its first byte on.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is kept on which there is no request, and has been none.
pub const IDLE_CLIENT_TIMEOUT: Duration = Duration::from_secs(75);
/// How long the body of a request may pause, on its way in or out. Whoever takes it has not been slow meanwhile.
pub const BODY_PAUSE_TIMEOUT: Duration = Duration::from_secs(25);
/// Bytes a second that the body of a request has to come at, as long as it is waited for.
pub const BODY_RATE_MIN: u64 = 240;
/// Over how much time of waiting that is counted: longer than a pause may be, so that one pause is no slow body.
pub const BODY_RATE_WINDOW: Duration = Duration::from_secs(30);
/// How long a client may take nothing of its response.
pub const RESPONSE_PAUSE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long requests in progress may take to finish after a signal to stop.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long instances may work on after the last answer before the host ends.
pub const AFTERWARDS_TIMEOUT: Duration = Duration::from_millis(300);

/// How long connecting to an outbound host may take, unless the component says less.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an outbound host may take to answer with a head, or to take more of the request's body, unless the component says
/// less.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an outbound host may pause within a body, unless the component says less.
pub const BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections that are kept for one outbound host.
pub const IDLE_CONNECTIONS_MAX: usize = 256;
/// How long an idle outbound connection is kept; less than servers usually keep theirs.
pub const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of all keys and values of one key-value store, most of them on disk.
pub const KEY_VALUE_BYTES_MAX: usize = 2 << 30;
/// Bytes of one key.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Bytes of one value.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Bytes of a value that is always in memory; a larger one is on disk.
pub const VALUE_MEMORY_BYTES_MAX: usize = 32 << 10;
/// Bytes of the larger ones that stay in memory once they were read, of one store.
pub const KEY_VALUE_RECENT_BYTES_MAX: usize = 64 << 20;
/// How long a change of a key-value store may wait before it is written to disk.
pub const KEY_VALUE_FLUSH: Duration = Duration::from_millis(20);

/// Bytes of one line that a component logs; longer lines are split.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
