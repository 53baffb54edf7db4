//! TLS for every listener: one crypto provider (ring), one certificate, made by ourselves on the first run.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;

use crate::config::Section;

/// Where certificate and key lie.
#[derive(Debug, Clone)]
pub struct Config {
    /// PEM, the chain.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Config {
    /// Reads the section `tls`; the files' defaults lie in `var`.
    pub fn read(section: &mut Section, var: &Path) -> Self {
        let (certificate, key) = (var.join("tls/certificate.pem"), var.join("tls/key.pem"));
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        Self {
            certificate: section.file(
                "certificate",
                &certificate,
                "The certificate with its chain, PEM. A self-signed one is made when neither file is there.",
            ),
            key: section.file("key", &key, "Its private key, PEM."),
        }
    }
}

/// Reads certificate and key, or makes a self-signed pair for `names` when both files are absent.
///
/// # Errors
/// When one of the two files is missing or unreadable, or they do not belong together.
pub fn acceptor(config: &Config, names: &[String]) -> anyhow::Result<TlsAcceptor> {
    match (config.certificate.exists(), config.key.exists()) {
        (true, true) => {}
        (false, false) => make_pair(config, names)?,
        (true, false) => bail!("{} is there, its key {} is not", config.certificate.display(), config.key.display()),
        (false, true) => {
            bail!("{} is there, its certificate {} is not", config.key.display(), config.certificate.display())
        }
    }
    let read = || format!("reading {}", config.certificate.display());
    let chain = CertificateDer::pem_file_iter(&config.certificate)
        .with_context(read)?
        .collect::<Result<Vec<_>, _>>()
        .with_context(read)?;
    let key = PrivateKeyDer::from_pem_file(&config.key).with_context(|| format!("reading {}", config.key.display()))?;
    let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key do not fit")?;
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn make_pair(config: &Config, names: &[String]) -> anyhow::Result<()> {
    let pair = rcgen::generate_simple_self_signed(names.to_vec()).context("making a certificate")?;
    write_new(&config.key, pair.signing_key.serialize_pem().as_bytes(), 0o600)?;
    write_new(&config.certificate, pair.cert.pem().as_bytes(), 0o644)?;
    tracing::info!(certificate = %config.certificate.display(), "made a self-signed certificate");
    Ok(())
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(content)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_pair_is_made_once_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { certificate: folder.path().join("a/c.pem"), key: folder.path().join("a/k.pem") };
        let names = ["localhost".to_owned()];
        acceptor(&config, &names).unwrap();
        let first = fs::read(&config.certificate).unwrap();
        acceptor(&config, &names).unwrap();
        assert_eq!(fs::read(&config.certificate).unwrap(), first);
        assert_eq!(fs::metadata(&config.key).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&config.key).unwrap();
        assert!(acceptor(&config, &names).err().unwrap().to_string().contains("its key"));
    }
}
