//! Keys and tokens of the benchmarks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::paths;
use crate::run::run;

/// Distinct tokens: several times what an edge remembers, so that each is forgotten when its turn comes again.
pub const TOKENS: u64 = 40_000;
/// Who signs the tokens.
pub const ISSUER: &str = "https://issuer.bench.example";
/// For whom they are.
pub const AUDIENCE: &str = "https://api.bench.example";

/// Keys and tokens, made anew for every run.
pub struct Tokens {
    /// JSON Web Key Set of the two keys, secrets included.
    pub keys: Value,
    /// File of one HS256 token.
    pub hs256: PathBuf,
    /// File of [`TOKENS`] ES256 tokens.
    pub es256: PathBuf,
    /// File of one valid token without the scope.
    pub unscoped: PathBuf,
    /// File of tokens that nobody may take: forged, expired, of another issuer, for another audience.
    pub refused: PathBuf,
    /// The public key of the ES256 tokens, in PEM.
    pub es256_pem: PathBuf,
}

impl Tokens {
    /// Makes them in `folder`.
    ///
    /// # Errors
    /// When Node is missing or fails.
    pub fn mint(folder: &Path) -> Result<Self> {
        let script = paths::root().join("tests/bench/tokens.mjs");
        let mut node = Command::new("node");
        let printed = run("mint tokens", node.arg(script).arg(folder).arg(TOKENS.to_string()))?;
        let keys = serde_json::from_str(&printed).context("tokens.mjs printed no JSON")?;
        Ok(Self::in_folder(folder, keys))
    }

    /// A member of the key with this id.
    pub fn key(&self, kid: &str, member: &str) -> Result<&str> {
        let keys = self.keys["keys"].as_array().context("a key set has keys")?;
        let key = keys.iter().find(|key| key["kid"] == kid);
        key.and_then(|key| key[member].as_str()).with_context(|| format!("key {kid} has no {member}"))
    }

    /// The secret of the HS256 tokens; it is text.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn hs256_secret(&self) -> Result<String> {
        let bytes = URL_SAFE_NO_PAD.decode(self.key("hs", "k")?).context("a secret is in base64url")?;
        String::from_utf8(bytes).context("the secret is text")
    }

    /// The first token of a file.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn first(file: &Path) -> Result<String> {
        Ok(Self::some(file, 1)?.pop().unwrap_or_default())
    }

    /// The first `count` tokens of a file, or all if it has fewer.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn some(file: &Path, count: usize) -> Result<Vec<String>> {
        let text = fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
        Ok(text.lines().take(count).map(str::to_owned).collect())
    }
    /// Keys that sign nothing, for tests of configurations.
    #[cfg(test)]
    pub fn for_tests(folder: &Path, secret: &str) -> Self {
        let k = URL_SAFE_NO_PAD.encode(secret);
        let keys = serde_json::json!({"keys": [{"kid": "hs", "alg": "HS256", "kty": "oct", "k": k}]});
        Self::in_folder(folder, keys)
    }

    fn in_folder(folder: &Path, keys: Value) -> Self {
        let file = |name| folder.join(name);
        Self {
            keys,
            hs256: file("hs256.txt"),
            es256: file("es256.txt"),
            unscoped: file("unscoped.txt"),
            refused: file("refused.txt"),
            es256_pem: file("es256.pem"),
        }
    }
}
