//! Keys and passwords of one local stack: made once, kept in `keys/`, readable by their owner only.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ed25519_compact::{KeyPair, Seed};
use sha2::{Digest as _, Sha256};

use super::layout::write_private;

/// Length of the symmetric keys and of an Ed25519 seed.
const KEY_BYTES: usize = 32;

/// All keys and passwords of one local stack.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Names this stack's folders outside the project, if it needs any.
    pub id: String,
    /// `KID:BASE64URL` of the key of contexts and session tokens.
    pub context: String,
    /// Secret of the edges' keyed hashes, in base64url.
    pub hash: String,
    /// `KID:BASE64URL` of the key between origins.
    pub peer: String,
    /// Signs bundles.
    pub bundle: SigningKey,
    /// First token of the control API.
    pub control_token: String,
    /// Password of PostgreSQL's superuser.
    pub postgres_superuser: String,
    /// Passwords of the three roles.
    pub postgres_owner: String,
    /// Password of the role of the data and control API.
    pub postgres_app: String,
    /// Password of the role that reads slots and applies changes.
    pub postgres_replicator: String,
    /// Signs the tokens of `acme`'s end users.
    pub issuer_acme: SigningKey,
    /// Signs the tokens of `globex`'s end users.
    pub issuer_globex: SigningKey,
}

/// An Ed25519 key with its id.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// Key id.
    pub kid: String,
    pair: KeyPair,
}

impl SigningKey {
    /// `KID:BASE64URL` of seed and public key.
    pub fn secret(&self) -> String {
        format!("{}:{}", self.kid, BASE64URL.encode(*self.pair.sk))
    }

    /// `KID:BASE64URL` of the public key.
    pub fn public(&self) -> String {
        format!("{}:{}", self.kid, self.public_x())
    }

    /// The public key in base64url, which is `x` of the JWK.
    pub fn public_x(&self) -> String {
        BASE64URL.encode(*self.pair.pk)
    }

    /// Signature of `message` in base64url.
    pub fn sign(&self, message: &[u8]) -> String {
        BASE64URL.encode(*self.pair.sk.sign(message, None))
    }
}

impl Keys {
    /// Reads the keys in `folder`, making those that are missing.
    ///
    /// # Errors
    /// When a key can't be read, made or understood.
    pub fn load(folder: &Path) -> Result<Self> {
        let store = Folder(folder.to_path_buf());
        let bundle = store.signing("bundle-signing-key", "bundle-1")?;
        write_private(&folder.join("bundle-keys"), bundle.public().as_bytes())?;
        Ok(Self {
            id: store.text("id", || Ok(random::<6>()?.iter().map(|byte| format!("{byte:02x}")).collect()))?,
            context: store.text("context-keys", || Ok(format!("context-1:{}", password()?)))?,
            hash: store.text("hash-key", password)?,
            peer: store.text("peer-keys", || Ok(format!("peer-1:{}", password()?)))?,
            bundle,
            control_token: store.text("control-token", password)?,
            postgres_superuser: store.text("postgres-superuser", password)?,
            postgres_owner: store.text("postgres-owner", password)?,
            postgres_app: store.text("postgres-app", password)?,
            postgres_replicator: store.text("postgres-replicator", password)?,
            issuer_acme: store.signing("issuer-acme", "acme-1")?,
            issuer_globex: store.signing("issuer-globex", "globex-1")?,
        })
    }

    /// SHA-256 of the control token, in hexadecimal.
    pub fn control_token_sha256(&self) -> String {
        Sha256::digest(self.control_token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

struct Folder(PathBuf);

impl Folder {
    fn text(&self, name: &str, make: impl FnOnce() -> Result<String>) -> Result<String> {
        let path = self.0.join(name);
        if !path.exists() {
            write_private(&path, make()?.as_bytes())?;
        }
        fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
    }

    fn signing(&self, name: &str, kid: &str) -> Result<SigningKey> {
        let text = self.text(name, || {
            let pair = KeyPair::from_seed(Seed::new(random()?));
            Ok(SigningKey { kid: kid.to_owned(), pair }.secret())
        })?;
        let parse = || {
            let (kid, key) = text.split_once(':')?;
            let pair = KeyPair::from_slice(&BASE64URL.decode(key).ok()?).ok()?;
            Some(SigningKey { kid: kid.to_owned(), pair })
        };
        parse()
            .with_context(|| format!("{}: not KID:BASE64URL of an Ed25519 key", self.0.join(name).display()))
    }
}

/// Random bytes in base64url: strong enough as key, password and token, and harmless in URLs.
fn password() -> Result<String> {
    Ok(BASE64URL.encode(random::<KEY_BYTES>()?))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut source = fs::File::open("/dev/urandom").context("could not open /dev/urandom")?;
    source.read_exact(&mut bytes).context("could not read /dev/urandom")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_are_made_once_and_private() {
        let folder = std::env::temp_dir().join(format!("meridian-keys-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let first = Keys::load(&folder).unwrap();
        let second = Keys::load(&folder).unwrap();
        assert_eq!((&first.context, &first.hash), (&second.context, &second.hash));
        assert_eq!(first.bundle.secret(), second.bundle.secret());
        assert_ne!(first.issuer_acme.secret(), first.issuer_globex.secret());
        let (_, secret) =
            first.bundle.secret().split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!(BASE64URL.decode(secret).unwrap().len(), 64);
        for entry in fs::read_dir(&folder).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
