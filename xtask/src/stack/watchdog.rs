//! Ends processes that run but no longer answer, for the supervisor to start them again.
//!
//! Cloudflare's platform ends an isolate that computes for too long; the open-source runtime leaves that to what is
//! around it, which here is this.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::Identity;
use crate::limits::POLL;
use crate::progress::say;

/// An edge refuses it by itself, and asks no origin for anything.
const QUESTION: &[u8] = b"GET /%zz HTTP/1.1\r\nhost: watchdog\r\nconnection: close\r\n\r\n";

/// How often a process is asked, and how long it may leave that unanswered.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From one question to the next, and for an answer to one.
    pub each: Duration,
    /// Since the last answer.
    pub silence_max: Duration,
}

/// Asks the process at `address`, until it is gone. Once it has answered, it is ended when it is silent for too long.
pub fn watch(name: String, process: Identity, address: SocketAddr, patience: Patience) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut answered = None;
        while process.alive() {
            let asked = Instant::now();
            if answers(address, patience.each) {
                answered = Some(Instant::now());
            } else if answered.is_some_and(|at: Instant| at.elapsed() > patience.silence_max) {
                let silence = patience.silence_max.as_secs_f32();
                say(&format!(
                    "  ! {name} has not answered for {silence:.1} s: ending process {}",
                    process.pid
                ));
                process.signal(Signal::KILL);
                return;
            }
            // Until it serves it is asked all the time: it may get stuck with the first request that it gets.
            let pause = answered.map_or(POLL, |_| patience.each);
            while asked.elapsed() < pause && process.alive() {
                std::thread::sleep(POLL);
            }
        }
    })
}

/// Whether anything comes back in time.
fn answers(address: SocketAddr, limit: Duration) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.write_all(QUESTION)?;
        Ok(stream.read(&mut [0; 1])? > 0)
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command};
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Patience =
        Patience { each: Duration::from_millis(50), silence_max: Duration::from_millis(200) };

    fn sleeper() -> (Child, Identity) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        (child, identity)
    }

    /// Answers so many times, and then takes questions without a word until the other end of the channel is gone.
    fn answering(times: usize) -> (SocketAddr, mpsc::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (open, closed) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for (number, stream) in listener.incoming().flatten().enumerate() {
                if closed.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
                    return;
                }
                match number < times {
                    true => drop((&stream).write_all(b"HTTP/1.1 400 Bad\r\n\r\n")),
                    false => silent.push(stream),
                }
            }
        });
        (address, open)
    }

    #[test]
    fn a_process_that_falls_silent_is_ended() {
        let (mut child, identity) = sleeper();
        let (address, open) = answering(3);
        watch("one".to_owned(), identity, address, PATIENCE).join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        drop(open);
    }

    #[test]
    fn one_that_answers_or_has_never_answered_is_left_alone() {
        for times in [usize::MAX, 0] {
            let (mut child, identity) = sleeper();
            let (address, open) = answering(times);
            let watching = watch("one".to_owned(), identity, address, PATIENCE);
            let until = Instant::now() + PATIENCE.silence_max * 4;
            while Instant::now() < until {
                assert_eq!(child.try_wait().unwrap(), None);
                std::thread::sleep(PATIENCE.each);
            }
            child.kill().unwrap();
            child.wait().unwrap();
            watching.join().unwrap();
            drop(open);
        }
    }
}
