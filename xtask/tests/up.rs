//! What `up` and `down` say when they can't do what they are asked to.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

#[test]
fn a_taken_port_is_an_error_that_names_the_flag() {
    let data = Data::new("port");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = data.xtask(&["up", "--no-build", "--cloudflare-port", &free_port(), "--spin-port", &port]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains(&format!("port {port} is taken")), "{error}");
    assert!(error.contains("--spin-port"), "{error}");
    assert!(!data.0.join("up.json").exists());
}

#[test]
fn a_port_that_is_given_twice_is_an_error_that_names_both_flags() {
    let (data, port) = (Data::new("twice"), free_port());
    let output = data.xtask(&["up", "--no-build", "--cloudflare-port", &port, "--spin-port", &port]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{error}");
    assert!(error.contains("--cloudflare-port and --spin-port both come to port"), "{error}");
}

#[test]
fn two_stacks_never_share_a_data_folder() {
    let data = Data::new("lock");
    fs::create_dir_all(&data.0).unwrap();
    let lock = fs::File::create(data.0.join("up.lock")).unwrap();
    lock.lock().unwrap();
    let output = data.xtask(&["up", "--no-build"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("a stack uses"), "{error}");
}

#[test]
fn down_forgets_everything_and_is_content_with_nothing() {
    let data = Data::new("down");
    assert!(data.xtask(&["down"]).status.success());
    fs::create_dir_all(data.0.join("keys")).unwrap();
    assert!(data.xtask(&["down"]).status.success());
    assert!(data.0.exists());
    assert!(data.xtask(&["down", "--purge"]).status.success());
    assert!(!data.0.exists());
}

#[test]
fn down_removes_nothing_that_no_stack_made() {
    let data = Data::new("shared");
    for folder in ["keys", "photographs"] {
        fs::create_dir_all(data.0.join(folder)).unwrap();
    }
    let output = data.xtask(&["down", "--purge"]);
    assert!(output.status.success());
    assert!(!data.0.join("keys").exists() && data.0.join("photographs").exists());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("stays in"), "{said}");
}

fn free_port() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port().to_string()
}

/// A data folder, removed at the end.
struct Data(PathBuf);

impl Data {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("meridian-{name}-{}", std::process::id())))
    }

    fn xtask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(arguments).arg("--data").arg(&self.0).output().unwrap()
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _left_to_the_system = fs::remove_dir_all(&self.0);
    }
}
