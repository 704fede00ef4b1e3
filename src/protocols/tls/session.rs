//! What two ends have agreed on.

use rustls::pki_types::CertificateDer;
use rustls::{Connection, HandshakeKind, ProtocolVersion};

/// What the two ends of a session have agreed on, in
/// [`Context::session`](crate::Context::session) from `opened` on.
///
/// ```
/// use lariat::{Context, Outcome};
/// use lariat::tls::TlsSession;
///
/// fn opened(cx: &mut Context<'_>) -> Outcome {
///     if let Some(session) = cx.session::<TlsSession>() {
///         println!("{:?}, {:?}", session.version(), session.alpn());
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct TlsSession {
    version: TlsVersion,
    cipher_suite: String,
    alpn: Option<Vec<u8>>,
    server_name: Option<String>,
    peer_certificates: Vec<CertificateDer<'static>>,
    resumed: bool,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    Tls12,
    /// TLS 1.3, RFC 8446.
    Tls13,
}

impl TlsSession {
    /// None while the handshake goes on.
    pub(super) fn of(session: &Connection) -> Option<TlsSession> {
        if session.is_handshaking() {
            return None;
        }
        let version = match session.protocol_version()? {
            ProtocolVersion::TLSv1_2 => TlsVersion::Tls12,
            _ => TlsVersion::Tls13,
        };
        let server_name = match session {
            Connection::Server(server) => server.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        };
        let certificates = session.peer_certificates().unwrap_or_default();
        Some(TlsSession {
            version,
            cipher_suite: format!("{:?}", session.negotiated_cipher_suite()?.suite()),
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            server_name,
            peer_certificates: certificates.iter().map(|one| one.clone().into_owned()).collect(),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// The version of the protocol.
    pub fn version(&self) -> TlsVersion {
        self.version
    }

    /// The cipher suite by its IANA name, for instance `TLS13_AES_256_GCM_SHA384`.
    pub fn cipher_suite(&self) -> &str {
        &self.cipher_suite
    }

    /// The protocol that both ends have agreed on by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// On a server, the host name that the client has asked for (SNI).
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The peer's certificates in DER form, its own first, all verified. On a server it is empty
    /// unless it asks for them; see [`ServerConfig::mutual`](super::ServerConfig::mutual).
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.peer_certificates
    }

    /// Whether an earlier session was resumed, without a new exchange of certificates.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }
}
