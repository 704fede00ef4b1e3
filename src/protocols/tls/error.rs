//! What goes wrong with TLS, in words.

use std::error::Error;
use std::fmt;

use rustls::{CertificateError, InvalidMessage};

/// Why a configuration cannot be made, or a session failed.
///
/// [`source`](Error::source) is the error of rustls or of the system, if there is one.
/// Its `Debug` form is the sentence too, so that `main` may return it.
pub struct TlsError {
    sentence: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl TlsError {
    pub(super) fn new(
        sentence: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> TlsError {
        TlsError { sentence: sentence.into(), source: Some(source.into()) }
    }

    pub(super) fn plain(sentence: impl Into<String>) -> TlsError {
        TlsError { sentence: sentence.into(), source: None }
    }

    /// The error of a session.
    pub(super) fn of_session(error: rustls::Error) -> TlsError {
        let sentence = match &error {
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => "the peer does not speak TLS".to_owned(),
            rustls::Error::InvalidCertificate(problem) => {
                format!("the peer's certificate {}", of_certificate(problem))
            }
            rustls::Error::NoCertificatesPresented => {
                "the peer has not shown a certificate".to_owned()
            }
            rustls::Error::AlertReceived(alert) => {
                format!("the peer has refused the session: {alert:?}")
            }
            other => other.to_string(),
        };
        TlsError::new(sentence, error)
    }
}

/// What is wrong with a certificate, behind its name.
pub(super) fn of_certificate(problem: &CertificateError) -> String {
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer => "is not issued by a trusted authority".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another name".to_owned()
        }
        CertificateError::Revoked => "is revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for this purpose".to_owned()
        }
        other => format!("is not valid: {other}"),
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl fmt::Debug for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
