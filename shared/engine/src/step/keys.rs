//! Key sets that a host fetches, and signatures that it checks.

use std::sync::Arc;

use crate::policy::jwt::SharedKeys;

/// A key set to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchKeys {
    /// Tenant whose issuer it is.
    pub tenant: String,
    /// Name of the `Issuer` document.
    pub issuer: String,
    /// Absolute URL of the JSON Web Key Set, or of what says where that is.
    pub url: String,
    /// What is fetched are the metadata of this issuer (OpenID Connect Discovery 1.0), which say where the key set is.
    pub metadata_of: Option<String>,
    /// How long the host may wait.
    pub timeout_ms: u32,
    /// When the last answer that this node knows of came, in milliseconds since the Unix epoch; 0: never.
    pub known_ms: u64,
    /// Age from which what another node has fetched is of no use.
    pub stale_ms: u64,
}

/// What came of a [`FetchKeys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchedKeys {
    /// The body, at most [`JWKS_BYTES_MAX`](crate::limits::JWKS_BYTES_MAX) long, or why not.
    Answer(Result<Vec<u8>, FetchFault>),
    /// Not fetched: what another node came by, as [`SharedKeys::turn`] allows.
    Shared(SharedKeys),
}

impl From<Result<Vec<u8>, FetchFault>> for FetchedKeys {
    fn from(answer: Result<Vec<u8>, FetchFault>) -> Self {
        Self::Answer(answer)
    }
}

/// Why something could not be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFault {
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// An answer other than 200.
    Status(u16),
    /// More bytes than allowed.
    TooLarge,
}

/// A signature to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// Algorithm, as pinned to the key (RFC 8725, section 3.1).
    pub algorithm: Algorithm,
    /// The key.
    pub key: Arc<VerificationKey>,
    /// The whole compact token; its last dot ends the signed part (RFC 7515, section 7.1).
    pub token: String,
}

/// Signature algorithms (RFC 7518, section 3.1; RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// A key that checks signatures, in the parts that every host's cryptography takes.
#[derive(Clone, PartialEq, Eq)]
pub enum VerificationKey {
    /// Shared secret of the HS algorithms.
    Secret(Vec<u8>),
    /// RSA modulus and exponent, big-endian.
    Rsa {
        /// Modulus.
        n: Vec<u8>,
        /// Public exponent.
        e: Vec<u8>,
    },
    /// Point on P-256, uncompressed SEC 1 form (65 bytes).
    P256(Vec<u8>),
    /// Point on P-384, uncompressed SEC 1 form (97 bytes).
    P384(Vec<u8>),
    /// Ed25519 public key (32 bytes).
    Ed25519(Vec<u8>),
}

impl std::fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(…)",
            Self::Rsa { .. } => "Rsa(…)",
            Self::P256(_) => "P256(…)",
            Self::P384(_) => "P384(…)",
            Self::Ed25519(_) => "Ed25519(…)",
        })
    }
}
