//! Certificates and keys, and the authorities that are trusted.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::error::{TlsError, of_certificate};

/// The cryptography that is used: ring's, or that of aws-lc-rs where its feature is on.
pub(super) fn provider() -> Arc<CryptoProvider> {
    #[cfg(not(feature = "tls-aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    #[cfg(feature = "tls-aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Arc::new(provider)
}

/// A certificate, the chain of certificates that leads to its authority, and its private key.
#[derive(Clone)]
pub struct Identity(pub(super) Arc<CertifiedKey>);

impl Identity {
    /// Takes the chain, the end's own certificate first, and the key (PKCS#8, PKCS#1 or SEC1) from
    /// PEM text.
    ///
    /// # Errors
    ///
    /// There is no certificate or no key, the key needs a passphrase or is of a kind that is not
    /// known, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Identity, TlsError> {
        Identity::parse(chain, "the certificate", key, "the key")
    }

    /// Reads the chain and the key from files in PEM form, which may be one and the same.
    ///
    /// # Errors
    ///
    /// A file cannot be read, and as [`from_pem`](Identity::from_pem). The error names the file.
    pub fn from_files(
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Identity, TlsError> {
        let (chain, key) = (chain.as_ref(), key.as_ref());
        let (chain_name, key_name) = (chain.display().to_string(), key.display().to_string());
        Identity::parse(&read(chain)?, &chain_name, &read(key)?, &key_name)
    }

    fn parse(
        chain: &[u8],
        chain_name: &str,
        key: &[u8],
        key_name: &str,
    ) -> Result<Identity, TlsError> {
        let certificates = certificates(chain, chain_name)?;
        let key = private_key(key, key_name)?;
        let key = provider().key_provider.load_private_key(key).map_err(|error| {
            TlsError::new(format!("the key in {key_name} cannot be used: {error}"), error)
        })?;
        let made = CertifiedKey::new(certificates, key);
        match made.keys_match() {
            // Unknown: a key that does not tell its public half is trusted to be the right one.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
                Ok(Identity(Arc::new(made)))
            }
            Err(error) => {
                let sentence = match &error {
                    rustls::Error::InvalidCertificate(problem) => {
                        format!("the first certificate in {chain_name} {}", of_certificate(problem))
                    }
                    _ => format!("{key_name} is not the key of {chain_name}"),
                };
                Err(TlsError::new(sentence, error))
            }
        }
    }
}

impl Identity {
    /// The form in which a configuration of rustls itself takes it.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Identity").field("certificates", &self.0.cert.len()).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let named = |error| TlsError::new(format!("cannot read {}: {error}", path.display()), error);
    fs::read(path).map_err(named)
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found =
        found.map_err(|error| TlsError::new(format!("{name} is not PEM: {error}"), error))?;
    if found.is_empty() {
        let hint = match PrivateKeyDer::from_pem_slice(pem) {
            Ok(_) => ": it is a private key; are the two swapped?",
            Err(_) => no_text(pem),
        };
        return Err(TlsError::plain(format!("{name} has no certificate in it{hint}")));
    }
    Ok(found)
}

/// Why there is nothing in a file that should be PEM, as far as its first byte tells.
fn no_text(pem: &[u8]) -> &'static str {
    match pem.first() {
        None => ": it is empty",
        // The beginning of whatever is in binary form.
        Some(0x30) => ": it seems to be DER, which openssl turns into PEM (-inform der)",
        Some(_) => "",
    }
}

fn private_key(pem: &[u8], name: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let has = |mark: &str| pem.windows(mark.len()).any(|window| window == mark.as_bytes());
        let hint = if has("ENCRYPTED") {
            ": it needs a passphrase, which has to be taken off (openssl pkey)"
        } else if has("BEGIN CERTIFICATE") {
            ": it is a certificate; are the two swapped?"
        } else {
            no_text(pem)
        };
        TlsError::new(format!("{name} has no private key in it{hint}"), error)
    })
}

/// The authorities that are trusted to issue certificates.
#[derive(Clone, Debug)]
pub struct Roots {
    store: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl Roots {
    /// Those in PEM text.
    ///
    /// # Errors
    ///
    /// There is no certificate in it, or one that cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Roots, TlsError> {
        Roots::parse(pem, "the list of authorities")
    }

    /// Those in a file in PEM form.
    ///
    /// # Errors
    ///
    /// It cannot be read, and as [`from_pem`](Roots::from_pem). The error names the file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Roots, TlsError> {
        let path = path.as_ref();
        Roots::parse(&read(path)?, &path.display().to_string())
    }

    /// Those that this system trusts: what `SSL_CERT_FILE` and `SSL_CERT_DIR` name, or else the
    /// system's own list.
    ///
    /// # Errors
    ///
    /// There are none.
    pub fn system() -> Result<Roots, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // A list may have some that are too old for any use.
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let sentence = "this system has no list of trusted authorities";
            return Err(match found.errors.into_iter().next() {
                Some(error) => TlsError::new(format!("{sentence}: {error}"), error),
                None => TlsError::plain(sentence),
            });
        }
        Ok(Roots::of(roots))
    }

    fn of(store: RootCertStore) -> Roots {
        Roots { store: Arc::new(store), revoked: Vec::new() }
    }

    /// Refuses the certificates in these lists (CRLs), in PEM form, besides those of earlier calls.
    /// A certificate whose authority has no list here passes. A list that has expired still holds:
    /// the program that fetches the lists makes a new configuration with the next ones.
    ///
    /// # Errors
    ///
    /// There is no list in it, or one that cannot be read.
    pub fn with_revoked(mut self, lists: &[u8]) -> Result<Roots, TlsError> {
        let found: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(lists).collect();
        let bad = |error: Box<dyn std::error::Error + Send + Sync>| {
            TlsError::new(format!("a list of revoked certificates cannot be read: {error}"), error)
        };
        let found = found.map_err(|error| bad(error.into()))?;
        if found.is_empty() {
            return Err(TlsError::plain("the text has no list of revoked certificates in it"));
        }
        self.revoked.extend(found);
        // What cannot be used is said here, so that configurations need no errors of their own.
        self.client_verifier().map_err(|error| bad(error.into()))?;
        Ok(self)
    }

    /// Verifies servers.
    pub(super) fn server_verifier(&self) -> Arc<WebPkiServerVerifier> {
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.store), provider())
            .with_crls(self.revoked.iter().cloned())
            .allow_unknown_revocation_status()
            .build()
            .expect("roots are not empty, and lists were tried when they came")
    }

    /// Verifies clients.
    pub(super) fn client_verifier(
        &self,
    ) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.store), provider())
            .with_crls(self.revoked.iter().cloned())
            .allow_unknown_revocation_status()
            .build()
    }

    fn parse(pem: &[u8], name: &str) -> Result<Roots, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem, name)? {
            let named =
                |error| TlsError::new(format!("{name} has a bad authority: {error}"), error);
            roots.add(certificate).map_err(named)?;
        }
        Ok(Roots::of(roots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feature_decides_whose_cryptography_is_used() {
        let shown = format!("{:?}", provider().secure_random);
        let expected = if cfg!(feature = "tls-aws-lc-rs") { "AwsLcRs" } else { "Ring" };
        assert_eq!(shown, expected);
    }
}
