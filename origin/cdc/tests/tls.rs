//! Origins and their databases speak TLS, and trust only whom they are told to.

mod region;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meridian_store::sqlx;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use region::{Region, Tls, World, eventually};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

/// An authority of one's own, whose certificate lies in a folder that goes with it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("meridian-test-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for this machine, and its key, both as PEM.
    fn certify(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn tls(&self) -> Tls {
        let (certificate, key) = self.certify();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        Tls { acceptor: Arc::new(config).into(), authorities: self.file() }
    }

    /// Turns TLS on at a region's PostgreSQL.
    async fn protect(&self, region: &Region) {
        let (certificate, key) = self.certify();
        let mut sql = region.sql().await;
        let data: String = sqlx::query_scalar("show data_directory").fetch_one(&mut sql).await.unwrap();
        let owner = std::fs::metadata(&data).unwrap();
        for (name, content) in [("server.crt", certificate), ("server.key", key)] {
            let path = Path::new(&data).join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        sqlx::raw_sql("alter system set ssl = on").execute(&mut sql).await.unwrap();
        sqlx::raw_sql("select pg_reload_conf()").execute(&mut sql).await.unwrap();
        eventually("PostgreSQL offers TLS", || async {
            region.count("select (current_setting('ssl') = 'on')::int::bigint").await == 1
        })
        .await;
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// The region's database by its name, verified against an authority.
fn verified(region: &Region, authority: &Authority) -> String {
    let plain = region.cluster.url("meridian_replicator").replace("127.0.0.1", "localhost");
    format!("{plain}?sslmode=verify-full&sslrootcert={}", authority.file().display())
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_replicate_over_tls_with_a_private_authority() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let mut world = World::quiet(2).await;
    world.tenants().await;
    for region in &mut world.regions {
        ours.protect(region).await;
        region.replication_url = verified(region, &ours);
        region.tls = Some(ours.tls());
        region.start_origin().await;
    }
    let secret = "Rosebud-7391";
    world.settle().await;
    let first = world.regions[0].create("acme", json!({"note": secret})).await.id;
    world.regions[1].create("acme", json!({"note": secret})).await;
    world.assert_equal().await;
    assert_eq!(world.regions[1].get("acme", first).await.unwrap().fields["note"], json!(secret));
    for tap in world.taps.values() {
        let heard = tap.heard.lock().unwrap().len();
        assert!(heard > 0 && !tap.heard(secret) && !tap.heard("HTTP/1.1"), "{heard} bytes in plain");
    }
    for region in &world.regions {
        let readers = "select count(*) from pg_stat_replication r join pg_stat_ssl s using (pid)";
        assert_eq!(region.count(readers).await, 2, "one for the peer and one for the region itself");
        let plain = "select count(*) from pg_stat_activity a join pg_stat_ssl s using (pid)
                      where a.usename = 'meridian_replicator' and not s.ssl";
        assert_eq!(region.count(plain).await, 0, "connections without TLS");
    }

    // A region that trusts somebody else connects to nobody, says why, and comes back.
    world.regions[1].stop_origin().await;
    world.regions[1].tls.as_mut().unwrap().authorities = others.file();
    world.regions[1].start_origin().await;
    eventually("the certificate is refused", || async {
        let status = world.regions[1].replication().status();
        let detail = status[0].detail.clone().unwrap_or_default();
        status[0].state == "connecting"
            && detail.starts_with("the certificate of https://127.0.0.1:")
            && detail.contains("is not trusted here: invalid peer certificate: UnknownIssuer")
    })
    .await;
    let later = world.regions[0].create("acme", json!({"note": "later"})).await.id;
    world.regions[1].stop_origin().await;
    world.regions[1].tls.as_mut().unwrap().authorities = ours.file();
    world.regions[1].start_origin().await;
    world.assert_equal().await;
    assert!(world.regions[1].get("acme", later).await.is_ok());

    // The same for the database.
    world.regions[1].stop_origin().await;
    world.regions[1].replication_url = verified(&world.regions[1], &others);
    let refused = world.regions[1].try_start_origin().await.unwrap_err();
    let mut chain = vec![refused.to_string()];
    let mut source = std::error::Error::source(&refused);
    while let Some(error) = source {
        chain.push(error.to_string());
        source = error.source();
    }
    assert!(chain.iter().any(|error| error.contains("UnknownIssuer")), "{chain:?}");
    world.stop().await;
}
