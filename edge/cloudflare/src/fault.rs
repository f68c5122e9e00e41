//! Routes that break on purpose. Only the tests of recovery build them in, with the feature `fault-injection`.

use crate::host;

/// Breaks the instance where the path asks for it: at once, or after something was waited for.
pub async fn inject(path: &str) {
    match path {
        "/.fault/panic" => panic!("asked for"),
        "/.fault/panic-later" => {
            wait(20).await;
            panic!("asked for, later");
        }
        "/.fault/trap-later" => {
            wait(20).await;
            overflow(1);
        }
        "/.fault/wait" => wait(2_000).await,
        _ => {}
    }
}

async fn wait(ms: u32) {
    // A promise of a timer is never rejected.
    let _ = host::wait(host::sleep(ms)).await;
}

/// Uses the stack up: a trap without a panic.
#[expect(unconditional_recursion, reason = "it is to overflow the stack")]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    overflow(depth + 1) + std::hint::black_box(frame)[7]
}
