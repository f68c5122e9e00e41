//! What an origin is told when it starts: arguments, each with an environment variable of the same meaning.

mod values;

use std::borrow::Cow;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use meridian_store::limits::REGION_ORDINAL_MAX;
use meridian_wire::event;
use meridian_wire::keyring::{MacKeyring, SigningKey};
use percent_encoding::percent_decode_str;

pub use self::values::{BaseUrl, InvalidBaseUrl, InvalidPeer, InvalidSha256, Peer, Secret, Sha256Hex};
use crate::limits::{EVENT_KEEP_DAYS_DEFAULT, EVENT_KEEP_DAYS_MAX};

/// The regional origin service of Meridian.
#[derive(Debug, Parser)]
#[command(name = "meridian-origin", version)]
pub struct Cli {
    /// What to do; `serve` where nothing is said.
    #[command(subcommand)]
    pub command: Command,
    /// Shape of the log on standard error.
    #[arg(long, env = "MERIDIAN_LOG", value_enum, default_value_t = Log::Text, global = true)]
    pub log: Log,
}

impl Cli {
    /// Reads the arguments of the process, the program's name first. Where they name no command, they are those of
    /// `serve`.
    ///
    /// # Errors
    /// What clap has to say: an error, the help or the version.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut arguments: Vec<_> = arguments.into_iter().collect();
        let command = Self::command();
        let known = |argument: &str| {
            matches!(argument, "help" | "-h" | "--help" | "-V" | "--version")
                || command.find_subcommand(argument).is_some()
        };
        if !arguments.iter().skip(1).filter_map(|argument| argument.to_str()).any(known) {
            arguments.insert(arguments.len().min(1), "serve".into());
        }
        Self::try_parse_from(arguments)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves until SIGTERM or SIGINT.
    Serve(Box<Config>),
    /// Brings the schema of the database up to date.
    Migrate(Migrate),
    /// Makes the database, its roles and their grants, as a superuser. May be run again.
    Bootstrap(Bootstrap),
    /// Prints the description of the HTTP interface (OpenAPI 3.1).
    Openapi,
}

/// Shape of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Log {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which region this is.
#[derive(Clone, Debug, Args)]
pub struct Identity {
    /// Id of the region, `us-east-1`.
    #[arg(long, env = "MERIDIAN_REGION")]
    pub region: String,
    /// Number of the region in stamps and positions, from 1 to 255.
    #[arg(long, env = "MERIDIAN_REGION_ORDINAL", value_parser = clap::value_parser!(u16).range(1..=i64::from(REGION_ORDINAL_MAX)))]
    pub region_ordinal: u16,
}

/// Arguments of `migrate`.
#[derive(Clone, Debug, Args)]
pub struct Migrate {
    /// Which region this is.
    #[command(flatten)]
    pub identity: Identity,
    /// Database as the role that owns the schema.
    #[arg(long, env = "MERIDIAN_OWNER_URL", hide_env_values = true)]
    pub owner_url: Secret,
}

/// Arguments of `bootstrap`. Names and passwords of the roles are read from the three addresses.
#[derive(Clone, Debug, Args)]
pub struct Bootstrap {
    /// The cluster as a superuser, any database.
    #[arg(long, env = "MERIDIAN_SUPERUSER_URL", hide_env_values = true)]
    pub superuser_url: Secret,
    /// Database as the role of the data and control API.
    #[arg(long, env = "MERIDIAN_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,
    /// Database as the role that replicates.
    #[arg(long, env = "MERIDIAN_REPLICATION_URL", hide_env_values = true)]
    pub replication_url: Secret,
    /// Database as the role that owns the schema.
    #[arg(long, env = "MERIDIAN_OWNER_URL", hide_env_values = true)]
    pub owner_url: Secret,
}

impl Bootstrap {
    /// What is to be made.
    ///
    /// # Errors
    /// Where the addresses don't name the roles of Meridian with their passwords, and one database.
    pub fn wanted(&self) -> Result<meridian_store::Bootstrap, InvalidBootstrap> {
        let database =
            |url: &Secret| url.expose().rsplit('/').next().map(|rest| without_query(rest).to_owned());
        let owner = database(&self.owner_url).filter(|name| !name.is_empty());
        let owner = owner.ok_or(InvalidBootstrap::Database)?;
        if [&self.database_url, &self.replication_url]
            .into_iter()
            .any(|url| database(url).as_ref() != Some(&owner))
        {
            return Err(InvalidBootstrap::Database);
        }
        Ok(meridian_store::Bootstrap {
            database: owner,
            owner_password: password(&self.owner_url, "meridian_owner")?,
            app_password: password(&self.database_url, "meridian_app")?,
            replicator_password: password(&self.replication_url, "meridian_replicator")?,
        })
    }
}

/// Addresses that can't be bootstrapped from. Never holds any part of a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBootstrap {
    /// Not all of one database.
    #[error(
        "the three database URLs must name one and the same database: postgres://ROLE:PASSWORD@HOST:PORT/DATABASE"
    )]
    Database,
    /// Another role than expected, or none, or no password.
    #[error("the database URL of {0} must be postgres://{0}:PASSWORD@HOST:PORT/DATABASE")]
    Role(&'static str),
}

fn without_query(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or(text)
}

fn password(url: &Secret, role: &'static str) -> Result<String, InvalidBootstrap> {
    let user =
        url.expose().split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(user, _)| user);
    let (name, password) = user.and_then(|user| user.split_once(':')).ok_or(InvalidBootstrap::Role(role))?;
    let password = percent_decode_str(password).decode_utf8().ok().filter(|password| !password.is_empty());
    password.filter(|_| name == role).map(Cow::into_owned).ok_or(InvalidBootstrap::Role(role))
}

/// Arguments of `serve`.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// Which region this is.
    #[command(flatten)]
    pub identity: Identity,
    /// Address to listen on.
    #[arg(long, env = "MERIDIAN_LISTEN", default_value = "127.0.0.1:17101")]
    pub listen: SocketAddr,
    /// URLs under which edges and peers reach this origin, all those of its `Region` among them; contexts are signed for the
    /// authority of one.
    #[arg(long = "public-url", env = "MERIDIAN_PUBLIC_URL", value_delimiter = ',', required = true)]
    pub public_urls: Vec<BaseUrl>,
    /// Database as the role of the data and control API.
    #[arg(long, env = "MERIDIAN_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,
    /// Database as the role that replicates.
    #[arg(long, env = "MERIDIAN_REPLICATION_URL", hide_env_values = true)]
    pub replication_url: Secret,
    /// Database as the role that owns the schema; where it is given, the schema is brought up to date at the start.
    #[arg(long, env = "MERIDIAN_OWNER_URL", hide_env_values = true)]
    pub owner_url: Option<Secret>,
    /// The other regions: `REGION:ORDINAL=URL`.
    #[arg(long = "peer", env = "MERIDIAN_PEERS", value_delimiter = ',')]
    pub peers: Vec<Peer>,
    /// Region where the platform's rules are released and tenants are made: the same at all origins. Without it, the one
    /// with the lowest ordinal.
    #[arg(long, env = "MERIDIAN_PLATFORM_HOME")]
    pub platform_home: Option<String>,
    /// Keys of contexts and session tokens: `KID:BASE64URL`, the first signs.
    #[arg(long, env = "MERIDIAN_CONTEXT_KEYS", hide_env_values = true, value_parser = MacKeyring::parse)]
    pub context_keys: MacKeyring,
    /// Keys between origins: `KID:BASE64URL`, the first signs.
    #[arg(long, env = "MERIDIAN_PEER_KEYS", hide_env_values = true, value_parser = MacKeyring::parse)]
    pub peer_keys: MacKeyring,
    /// PEM file with the certificates of the authorities that alone are trusted at the other regions' `https` URLs;
    /// without it, those of the operating system are.
    #[arg(long, env = "MERIDIAN_PEER_CA")]
    pub peer_ca: Option<PathBuf>,
    /// Key that signs bundles: `KID:BASE64URL` of seed and public key. Without it, rules can't be released here.
    #[arg(long, env = "MERIDIAN_BUNDLE_SIGNING_KEY", hide_env_values = true, value_parser = SigningKey::parse)]
    pub bundle_signing_key: Option<SigningKey>,
    /// SHA-256 of the first control token, in hexadecimal.
    #[arg(long, env = "MERIDIAN_CONTROL_TOKEN_SHA256", hide_env_values = true)]
    pub control_token_sha256: Option<Sha256Hex>,
    /// Token that whoever reads `/metrics` shows as a bearer: numbers there name tenants. Without it nobody may.
    #[arg(long, env = "MERIDIAN_METRICS_TOKEN", hide_env_values = true)]
    pub metrics_token: Option<Secret>,
    /// Name servers that crawlers' addresses and the names of checked upstreams are looked up at: `ADDRESS:PORT`. Without
    /// any, those of the operating system.
    #[arg(long = "name-server", env = "MERIDIAN_NAME_SERVERS", value_delimiter = ',')]
    pub name_servers: Vec<SocketAddr>,
    /// Which upstreams of tenants this origin asks whether they are healthy, where rules have a health check. What is asked is
    /// written by tenants, and the origin may reach what they may not.
    #[arg(long, env = "MERIDIAN_UPSTREAM_CHECKS", value_enum, default_value_t = UpstreamChecks::Public)]
    pub upstream_checks: UpstreamChecks,
    /// What is kept of the decisions that edges report.
    #[command(flatten)]
    pub events: Events,
}

/// Which upstreams of tenants are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UpstreamChecks {
    /// None: edges learn from requests alone.
    Off,
    /// Those at public addresses of the Internet, whatever their names are.
    Public,
    /// All, also at addresses of this machine and its network: only where whoever writes tenants' rules may reach them.
    Any,
}

/// What is kept of the decisions that edges report.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Events {
    /// Days that reported decisions are kept, beside today.
    #[arg(long = "events-keep-days", env = "MERIDIAN_EVENTS_KEEP_DAYS", default_value_t = EVENT_KEEP_DAYS_DEFAULT,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(EVENT_KEEP_DAYS_MAX)))]
    pub keep_days: u16,
    /// What is kept of persons at the most; routes say what edges tell of them.
    #[arg(long = "events-personal", env = "MERIDIAN_EVENTS_PERSONAL", value_enum, default_value_t = Personal::Keep)]
    pub personal: Personal,
}

impl Default for Events {
    fn default() -> Self {
        Self { keep_days: EVENT_KEEP_DAYS_DEFAULT, personal: Personal::Keep }
    }
}

/// What is kept of persons in decisions at the most, in this region: less where a route's `log.personal` says less, which
/// edges obey before anything leaves them. No subject and no client's address is ever kept as it is; the keyed hashes by
/// which experiments count their units always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Personal {
    /// What edges tell: by `log: {personal: keep}` the path without its query, the country, and in explanations the client's
    /// network (24 bits of an IPv4 address, 48 of an IPv6 one).
    Keep,
    /// A hash of tenant and subject, the country, and the route's path in place of the request's.
    Hash,
    /// None of these but the route's path, no inputs of explanations, and nothing of who took part in experiments.
    Drop,
}

impl From<Personal> for event::Personal {
    fn from(personal: Personal) -> Self {
        match personal {
            Personal::Keep => Self::Keep,
            Personal::Hash => Self::Hash,
            Personal::Drop => Self::Drop,
        }
    }
}

impl Config {
    /// Ids of all regions that this origin is told of, itself among them, by their ordinals.
    pub fn regions(&self) -> impl Iterator<Item = (u16, &str)> {
        let own = (self.identity.region_ordinal, self.identity.region.as_str());
        self.peers.iter().map(|peer| (peer.ordinal, peer.region.as_str())).chain([own])
    }

    /// The authority that the context of a request has to be signed for: the one that the request is for, where it is this
    /// origin's.
    #[must_use]
    pub fn authority<'a>(&'a self, of_request: Option<&'a str>) -> &'a str {
        let own = of_request.filter(|authority| self.public_urls.iter().any(|url| url.accepts(authority)));
        own.or_else(|| self.public_urls.first().map(BaseUrl::authority)).unwrap_or_default()
    }

    /// The region where the platform's rules are released and tenants are made.
    #[must_use]
    pub fn platform_home(&self) -> &str {
        let lowest = || self.regions().min().map_or("", |(_, region)| region);
        self.platform_home.as_deref().unwrap_or_else(lowest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serving_is_what_is_done_where_nothing_is_said() {
        let read = |arguments: &[&str]| Cli::read(arguments.iter().map(OsString::from));
        assert!(matches!(read(&["origin", "openapi"]).unwrap().command, Command::Openapi));
        assert!(matches!(read(&["origin", "--log", "json", "openapi"]).unwrap().command, Command::Openapi));
        let wrong = read(&["origin", "--listen", "nowhere"]).unwrap_err().to_string();
        assert!(wrong.contains("--listen"), "understood as an argument of serve: {wrong}");
        assert_eq!(
            read(&["origin", "--version"]).unwrap_err().kind(),
            clap::error::ErrorKind::DisplayVersion
        );
    }

    #[test]
    fn an_origin_may_have_several_urls_and_has_one() {
        let serve = |urls: &[&str]| {
            let given = ["origin", "serve", "--region", "eu", "--region-ordinal", "2"].into_iter();
            let databases = ["--database-url", "postgres://a", "--replication-url", "postgres://a"];
            let keys = ["--context-keys", "k:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"];
            let peers = ["--peer-keys", "k:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"];
            let urls = urls.iter().flat_map(|url| ["--public-url", *url]);
            let all = given.chain(databases).chain(keys).chain(peers).chain(urls);
            match Cli::read(all.map(OsString::from)).map(|cli| cli.command) {
                Ok(Command::Serve(config)) => Ok(*config),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.kind()),
            }
        };
        let several = serve(&["https://a.example,https://b.example/"]).unwrap();
        let signed_for = |host| several.authority(host);
        assert_eq!(signed_for(Some("a.example")), "a.example");
        assert_eq!(signed_for(Some("b.example")), "b.example");
        assert_eq!((signed_for(Some("c.example")), signed_for(None)), ("a.example", "a.example"));
        let again = serve(&["https://a.example", "https://b.example"]).unwrap();
        assert_eq!(several.public_urls, again.public_urls);
        assert!(serve(&["https://a.example,"]).is_err());
        assert_eq!(serve(&[]).unwrap_err(), clap::error::ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn roles_and_passwords_are_read_from_the_addresses() {
        let url = |role: &str| format!("postgres://{role}:p%40ss@127.0.0.1:1/meridian?a=b").parse().unwrap();
        let mut bootstrap = Bootstrap {
            superuser_url: "postgres://postgres@127.0.0.1/postgres".parse().unwrap(),
            database_url: url("meridian_app"),
            replication_url: url("meridian_replicator"),
            owner_url: url("meridian_owner"),
        };
        let wanted = bootstrap.wanted().unwrap();
        assert_eq!((wanted.database.as_str(), wanted.app_password.as_str()), ("meridian", "p@ss"));
        bootstrap.database_url = url("postgres");
        assert_eq!(bootstrap.wanted().err(), Some(InvalidBootstrap::Role("meridian_app")));
        bootstrap.database_url = "postgres://meridian_app:x@127.0.0.1/other".parse().unwrap();
        assert_eq!(bootstrap.wanted().err(), Some(InvalidBootstrap::Database));
    }
}
