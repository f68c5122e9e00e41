//! Routes that break an edge on purpose. Only the tests of recovery build them in, with its feature `fault-injection`.

/// Bytes that are taken at once where memory is to be used up.
const PIECE_BYTES: usize = 1024 * 1024;

/// Breaks the instance where the path asks for it: at once, or after something was waited for. `wait` lets so many
/// milliseconds pass, as the host does.
pub async fn inject(path: &str, wait: impl AsyncFn(u32)) {
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
        "/.fault/memory" => fill(),
        "/.fault/loop" => spin(),
        "/.fault/wait" => wait(2_000).await,
        _ => {}
    }
}

/// Uses the stack up: a trap without a panic.
#[expect(unconditional_recursion, reason = "it is to overflow the stack")]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    overflow(depth + 1) + std::hint::black_box(frame)[7]
}

/// Takes memory until there is no more.
fn fill() {
    let mut taken = Vec::new();
    loop {
        taken.push(std::hint::black_box(vec![1_u8; PIECE_BYTES]));
    }
}

/// Computes for ever.
fn spin() {
    let mut number = 0_u64;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
    }
}
