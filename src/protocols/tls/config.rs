//! What sessions are like.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::DnsName;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::error::TlsError;
use super::identity::{Identity, Roots, provider};
use super::time::DriverTime;

/// What the sessions of a server are like. TLS 1.2 and 1.3 are spoken, sessions can be resumed, and
/// the certificates can be replaced while it runs. Clones share their certificates.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    config: Arc<rustls::ServerConfig>,
    /// None in a configuration of rustls' own making.
    certificates: Option<Arc<Certificates>>,
}

impl ServerConfig {
    /// Clients need no certificate.
    pub fn new(identity: Identity) -> ServerConfig {
        ServerConfig::build(identity, WebPkiClientVerifier::no_client_auth())
    }

    /// Mutual TLS: clients need a certificate that one of `roots` has issued. It is in
    /// [`TlsSession::peer_certificates`](super::TlsSession::peer_certificates).
    ///
    /// # Errors
    ///
    /// `roots` is not fit for it.
    pub fn mutual(identity: Identity, roots: &Roots) -> Result<ServerConfig, TlsError> {
        let verifier = roots.client_verifier();
        let unfit = |error| TlsError::new(format!("clients cannot be verified: {error}"), error);
        Ok(ServerConfig::build(identity, verifier.map_err(unfit)?))
    }

    fn build(
        identity: Identity,
        verifier: Arc<dyn rustls::server::danger::ClientCertVerifier>,
    ) -> ServerConfig {
        let certificates = Arc::new(Certificates {
            all: RwLock::new(All { first: identity.0, named: HashMap::new() }),
        });
        let resolver = Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>;
        let config = rustls::ServerConfig::builder_with_details(provider(), Arc::new(DriverTime))
            .with_safe_default_protocol_versions()
            .expect("there are suites for both versions")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(resolver);
        ServerConfig { config: Arc::new(config), certificates: Some(certificates) }
    }

    /// The protocols that are offered by ALPN, the preferred one first, for instance `http/1.1`. A
    /// client that offers others alone is refused.
    #[must_use]
    pub fn alpn<T: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = T>) -> ServerConfig {
        let names = protocols.into_iter().map(|name| name.as_ref().to_vec()).collect();
        Arc::make_mut(&mut self.config).alpn_protocols = names;
        self
    }

    /// Writes the keys of all sessions to the file that the environment variable `SSLKEYLOGFILE`
    /// names, so that a capture can be read. Everyone who has that file can read everything.
    #[must_use]
    pub fn log_keys(mut self) -> ServerConfig {
        Arc::make_mut(&mut self.config).key_log = Arc::new(rustls::KeyLogFile::new());
        self
    }

    /// Another certificate, for clients that ask for this host name (SNI). It replaces an earlier
    /// one for the same name. `*.example.org` is for all names with one word before `.example.org`,
    /// except those with a certificate of their own.
    ///
    /// # Errors
    ///
    /// `name` is no host name. This is a configuration of rustls' own making.
    pub fn add_name(&self, name: &str, identity: Identity) -> Result<(), TlsError> {
        let certificates = self.certificates()?;
        // A client that asks for an address asks for no name.
        if DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).is_err() {
            return Err(TlsError::plain(format!("{name:?} is not a host name")));
        }
        // Clients leave the dot of the root out.
        let asked = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let mut all = certificates.all.write().unwrap_or_else(PoisonError::into_inner);
        all.named.insert(asked, identity.0);
        Ok(())
    }

    /// Replaces the certificate for clients that ask for no name or for one without a certificate
    /// of its own. Sessions that have begun keep theirs. An [`Identity`] is checked when it is
    /// made, so that a bad pair of files leaves the old one in place.
    ///
    /// # Errors
    ///
    /// This is a configuration of rustls' own making.
    pub fn replace_identity(&self, identity: Identity) -> Result<(), TlsError> {
        let mut all = self.certificates()?.all.write().unwrap_or_else(PoisonError::into_inner);
        all.first = identity.0;
        Ok(())
    }

    fn certificates(&self) -> Result<&Certificates, TlsError> {
        let sentence = "the certificates of this configuration are rustls' own";
        self.certificates.as_deref().ok_or_else(|| TlsError::plain(sentence))
    }

    pub(super) fn shared(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.config)
    }
}

impl From<Arc<rustls::ServerConfig>> for ServerConfig {
    fn from(config: Arc<rustls::ServerConfig>) -> ServerConfig {
        ServerConfig { config, certificates: None }
    }
}

/// The certificates of a server, by the name that a client asks for.
struct Certificates {
    all: RwLock<All>,
}

struct All {
    first: Arc<CertifiedKey>,
    named: HashMap<String, Arc<CertifiedKey>>,
}

impl All {
    /// The certificate for a name in small letters.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let wild = || self.named.get(&format!("*{}", &name[name.find('.')?..]));
        self.named.get(name).or_else(wild)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let named = hello.server_name().and_then(|name| all.find(&name.to_ascii_lowercase()));
        Some(Arc::clone(named.unwrap_or(&all.first)))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(all.named.keys()).finish()
    }
}

/// What the sessions of a client are like: TLS 1.2 and 1.3 are spoken, sessions are resumed, and
/// the server's certificate is always verified.
#[derive(Clone, Debug)]
pub struct ClientConfig(Arc<rustls::ClientConfig>);

impl ClientConfig {
    /// Servers need a certificate that one of `roots` has issued.
    ///
    /// # Panics
    ///
    /// Never: `roots` are not empty.
    pub fn new(roots: &Roots) -> ClientConfig {
        ClientConfig(Arc::new(builder(roots).with_no_client_auth()))
    }

    /// Mutual TLS: the client has a certificate of its own.
    pub fn mutual(roots: &Roots, identity: Identity) -> ClientConfig {
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(identity.0));
        ClientConfig(Arc::new(builder(roots).with_client_cert_resolver(resolver)))
    }

    /// The protocols that are offered by ALPN, the preferred one first.
    #[must_use]
    pub fn alpn<T: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = T>) -> ClientConfig {
        let names = protocols.into_iter().map(|name| name.as_ref().to_vec()).collect();
        Arc::make_mut(&mut self.0).alpn_protocols = names;
        self
    }

    /// Writes the keys of all sessions to the file that the environment variable `SSLKEYLOGFILE`
    /// names, so that a capture can be read. Everyone who has that file can read everything.
    #[must_use]
    pub fn log_keys(mut self) -> ClientConfig {
        Arc::make_mut(&mut self.0).key_log = Arc::new(rustls::KeyLogFile::new());
        self
    }

    pub(super) fn shared(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.0)
    }
}

fn builder(
    roots: &Roots,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    rustls::ClientConfig::builder_with_details(provider(), Arc::new(DriverTime))
        .with_safe_default_protocol_versions()
        .expect("there are suites for both versions")
        .with_webpki_verifier(roots.server_verifier())
}

impl From<Arc<rustls::ClientConfig>> for ClientConfig {
    fn from(config: Arc<rustls::ClientConfig>) -> ClientConfig {
        ClientConfig(config)
    }
}
