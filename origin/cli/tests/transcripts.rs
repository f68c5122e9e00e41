//! What the command line prints and how it ends, for everything that needs no server: files of commands, each followed
//! by its output and exit code. `MERIDIAN_BLESS=1` writes them anew; read the difference before it is committed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Splits a command at its blanks, but not within quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in command.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            letter => words.last_mut().unwrap().push(letter),
        }
    }
    words
}

/// Copies a folder, so that commands find no local stack around them.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { _ = fs::copy(entry.path(), to).unwrap() }
    }
}

fn run(command: &str, home: &Path) -> String {
    let arguments = words(command.strip_prefix("meridian ").expect("a command of ours"));
    let output = Command::new(env!("CARGO_BIN_EXE_meridian"))
        .args(arguments)
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .output()
        .expect("runs");
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let code = output.status.code().expect("ends by itself");
    // The operating system's own words differ from one to the next.
    format!("$ {command}\n{out}{err}[{code}]\n")
        .replace("Connection refused (os error 111)", "Connection refused")
}

#[test]
fn commands_say_and_end_as_written() {
    let bless = std::env::var_os("MERIDIAN_BLESS").is_some();
    let home = std::env::temp_dir().join(format!("meridian-cli-{}", std::process::id()));
    copy(&tests().join("rules"), &home);
    let mut transcripts: Vec<PathBuf> =
        fs::read_dir(tests().join("transcripts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    transcripts.sort();
    assert!(transcripts.len() >= 5, "the transcripts are there");
    for path in transcripts {
        let stored = fs::read_to_string(&path).unwrap();
        let commands = stored.lines().filter_map(|line| line.strip_prefix("$ "));
        let now: String = commands.map(|command| run(command, &home)).collect();
        if bless {
            fs::write(&path, &now).unwrap();
        } else {
            assert_eq!(
                stored,
                now,
                "{} is not what is printed: look, then run with MERIDIAN_BLESS=1",
                path.display()
            );
        }
    }
    fs::remove_dir_all(&home).unwrap();
}

#[test]
fn a_login_is_only_for_its_owner_and_a_token_only_for_its_server() {
    let home = std::env::temp_dir().join(format!("meridian-cli-login-{}", std::process::id()));
    let folder = home.join("config/meridian");
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join("config.toml"),
        "[default]\nurl = \"http://127.0.0.1:1\"\ntoken = \"kept-secret\"\n",
    )
    .unwrap();
    let tenants = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_meridian"))
            .args(["tenant", "list"])
            .args(arguments)
            .current_dir(&home)
            .env_clear()
            .env("XDG_CONFIG_HOME", home.join("config"))
            .output()
            .expect("runs");
        let text = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("kept-secret"), "{text}");
        (output.status.code(), text)
    };
    let (code, text) = tenants(&[]);
    assert_eq!(code, Some(3), "the remembered server is asked: {text}");
    let (code, text) = tenants(&["--url", "http://127.0.0.1:2"]);
    assert_eq!(code, Some(2), "the remembered token is not for another server: {text}");
    assert!(text.contains("no token for http://127.0.0.1:2 is known"), "{text}");
    fs::remove_dir_all(&home).unwrap();
}

#[test]
fn a_minted_token_says_what_was_asked_and_no_more() {
    let home = std::env::temp_dir().join(format!("meridian-cli-mint-{}", std::process::id()));
    fs::create_dir_all(&home).unwrap();
    let key = jwt_simple::algorithms::Ed25519KeyPair::generate();
    let encoded = meridian_wire::encoding::base64url(&key.to_bytes());
    fs::write(home.join("key"), format!("acme-1:{encoded}\n")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_meridian"))
        .args(["token", "mint", "--sub", "ada", "--scope", "orders:read,orders:write", "--ttl", "10m"])
        .args(["--claim", "plan=gold", "--claim", "level=3", "--key", "key"])
        .current_dir(&home)
        .env_clear()
        .output()
        .expect("runs");
    let token = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    use jwt_simple::algorithms::EdDSAPublicKeyLike as _;
    let public = key.public_key();
    let claims = public
        .verify_token::<serde_json::Map<String, serde_json::Value>>(token.trim(), None)
        .expect("verifies");
    assert_eq!(claims.issuer.as_deref(), Some("https://issuer.acme.example"));
    assert_eq!(claims.subject.as_deref(), Some("ada"));
    assert_eq!(claims.custom["scope"], "orders:read orders:write");
    assert_eq!(claims.custom["plan"], "gold");
    assert_eq!(claims.custom["level"], 3);
    let life = claims.expires_at.unwrap() - claims.issued_at.unwrap();
    assert_eq!(life.as_secs(), 600);
    fs::remove_dir_all(&home).unwrap();
}
