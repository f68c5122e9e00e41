//! Whom this origin trusts when it connects to another over TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// A file of certificates that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTrust {
    /// It can't be read, or is no PEM.
    #[error("the certificates in {path} can't be read, expected PEM (RFC 7468)")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// It holds none of a certificate authority.
    #[error("{path} holds no certificate of an authority")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The cryptographic library refuses its own defaults.
    #[error("TLS can't be set up")]
    Setup(#[from] rustls::Error),
}

/// Trusts the authorities in a PEM file and nobody else; without one, those of the operating system.
///
/// # Errors
/// [`InvalidTrust`] when the file can't be read or holds no certificate.
pub fn trust(authorities: Option<&Path>) -> Result<Arc<ClientConfig>, InvalidTrust> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(path) => {
            let unreadable = |source| InvalidTrust::File { path: path.to_owned(), source };
            let found = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
            let found = found.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
            if roots.add_parsable_certificates(found).0 == 0 {
                return Err(InvalidTrust::Empty { path: path.to_owned() });
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            if roots.add_parsable_certificates(found.certs).0 == 0 {
                // Plain HTTP still works; nobody is trusted over TLS.
                tracing::warn!(errors = ?found.errors, "the system has no certificates to trust");
            }
        }
    }
    // Named, because a process may hold a second provider, and then there is no default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let missing = trust(Some(Path::new("/nowhere/ca.pem"))).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "the certificates in /nowhere/ca.pem can't be read, expected PEM (RFC 7468)"
        );
        let none = trust(Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")))).unwrap_err();
        assert!(none.to_string().ends_with("Cargo.toml holds no certificate of an authority"), "{none}");
    }
}
