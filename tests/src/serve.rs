//! Servers of tests: each on a free port of loopback, with a thread for each connection, until the process ends.

use std::io::Result;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// Has `answer` see to each connection, and says where: `http://127.0.0.1:PORT`. A connection that breaks is its client's to open
/// anew: what `answer` says of it is nobody's concern.
///
/// # Errors
/// When there is no port.
pub fn serve<T>(answer: impl Fn(TcpStream) -> T + Send + Sync + 'static) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || drop(answer(stream)));
        }
    });
    Ok(url)
}
