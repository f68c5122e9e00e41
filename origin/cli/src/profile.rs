//! Which server a command speaks to: what it is told, else what `login` remembered, else the local stack of the working
//! directory.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::failure::Failure;

/// The server, where it is told.
#[derive(Args)]
pub struct Server {
    /// URL of a server's control API. Without it: what `login` remembered, or the local stack's.
    #[arg(long, global = true, env = "MERIDIAN_URL", value_name = "URL")]
    url: Option<String>,
    /// Control token; rather in the environment or by `login` than on a command line.
    #[arg(long, global = true, env = "MERIDIAN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// A server and the token for it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Profile {
    /// URL.
    pub url: String,
    /// Control token.
    pub token: String,
}

/// What `login` remembers.
#[derive(Default, Serialize, Deserialize)]
struct Config {
    default: Option<Profile>,
}

impl Server {
    /// The URL that was told, if one was.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// The token that was told, if one was.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A client of the server.
    ///
    /// # Errors
    /// Where no server or no token is known.
    pub fn client(&self) -> Result<Client, Failure> {
        let known = match (&self.url, &self.token) {
            (Some(_), Some(_)) => None,
            _ => known()?,
        };
        // A token goes to the server that it is for: one that was remembered for another server is never sent.
        let same = |profile: &Profile| self.url.as_ref().is_none_or(|url| *url == profile.url);
        let token =
            self.token.clone().or_else(|| known.as_ref().filter(|it| same(it)).map(|it| it.token.clone()));
        let url = self.url.clone().or_else(|| known.map(|it| it.url));
        match (url, token) {
            (Some(url), Some(token)) => Client::new(&Profile { url, token }),
            (None, _) => Err(Failure::Usage(
                "no server is known: use `meridian login`, --url with MERIDIAN_TOKEN, or start the local stack".to_owned(),
            )),
            (Some(url), None) => Err(Failure::Usage(format!(
                "no token for {url} is known: use `meridian login`, or set MERIDIAN_TOKEN"
            ))),
        }
    }
}

fn known() -> Result<Option<Profile>, Failure> {
    let path = config_path()?;
    match fs::read_to_string(&path) {
        Ok(text) => {
            let config: Config = toml::from_str(&text).map_err(|_| {
                Failure::Usage(format!("{} is not readable: `meridian login` writes it anew", path.display()))
            })?;
            if config.default.is_some() {
                return Ok(config.default);
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(Failure::File { path, source }),
    }
    Ok(local_stack())
}

/// The control API of the local stack of this folder or one around it.
fn local_stack() -> Option<Profile> {
    #[derive(Deserialize)]
    struct Up {
        control: Profile,
    }
    let text = fs::read_to_string(beside_the_stack("up.json")?).ok()?;
    serde_json::from_str::<Up>(&text).ok().map(|up| up.control)
}

/// A file of the local stack's `.meridian` folder, here or in a folder around.
pub fn beside_the_stack(name: &str) -> Option<PathBuf> {
    let here = env::current_dir().ok()?;
    here.ancestors().map(|folder| folder.join(".meridian").join(name)).find(|path| path.is_file())
}

/// Where `login` remembers.
///
/// # Errors
/// Where there is no home folder.
pub fn config_path() -> Result<PathBuf, Failure> {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    let config =
        config.ok_or_else(|| Failure::Usage("neither XDG_CONFIG_HOME nor HOME is set".to_owned()))?;
    Ok(config.join("meridian").join("config.toml"))
}

/// Remembers a server, in a file that only its owner may read.
///
/// # Errors
/// Where the file cannot be written.
pub fn remember(profile: Profile) -> Result<PathBuf, Failure> {
    let path = config_path()?;
    let text = toml::to_string(&Config { default: Some(profile) })
        .map_err(|error| Failure::Usage(error.to_string()))?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Failure::file(folder))?;
    }
    write_private(&path, &text)?;
    Ok(path)
}

fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    // Written beside and then moved, so that the file is never half there nor readable by others for a moment.
    let beside = path.with_extension("toml.new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let written = options.open(&beside).and_then(|mut file| file.write_all(text.as_bytes()));
    written.and_then(|()| fs::rename(&beside, path)).map_err(Failure::file(path))
}
