//! `--tls-cert`, `--tls-key` and `--tls-self-signed`.

use lariat::{Address, Driver, Incoming, ListenOptions, ListenerId, Protocol};

use super::{Options, Result};

/// What was asked for, on the command line.
#[derive(Debug, Default)]
pub(super) struct TlsFlags {
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
    pub(super) self_signed: bool,
}

impl TlsFlags {
    pub(super) fn are_given(&self) -> bool {
        self.cert.is_some() || self.key.is_some() || self.self_signed
    }

    /// What is wrong with their combination, if something is.
    pub(super) fn fault(&self) -> Option<&'static str> {
        if self.cert.is_some() != self.key.is_some() {
            return Some("--tls-cert and --tls-key go together");
        }
        let both = self.self_signed && self.cert.is_some();
        both.then_some("--tls-self-signed and --tls-cert contradict one another")
    }
}

/// Listens, with TLS if that was asked for. `make` makes the protocol of a connection.
#[allow(dead_code)] // Not every example has TLS.
pub(crate) fn listen<P: Protocol + Send + 'static>(
    driver: &mut dyn Driver,
    addr: &Address,
    how: &ListenOptions,
    options: &Options,
    make: impl Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
) -> Result<ListenerId> {
    #[cfg(feature = "tls")]
    if let Some(secured) = &options.secured {
        let config = secured.config.clone();
        let make =
            move |incoming: &Incoming| Some(lariat::tls::Tls::server(&config, make(incoming)?));
        return Ok(driver.control().listen_with(addr, how.clone(), make)?);
    }
    let _ = options;
    Ok(driver.control().listen_with(addr, how.clone(), make)?)
}

#[cfg(feature = "tls")]
pub(super) use with_tls::Secured;

#[cfg(feature = "tls")]
mod with_tls {
    use std::path::PathBuf;

    use lariat::tls::{Identity, ServerConfig};

    use super::super::{Failure, Result, tell};
    use super::TlsFlags;

    /// The configuration, and the file in which clients find the certificate that was made.
    #[derive(Debug)]
    pub(crate) struct Secured {
        pub(super) config: ServerConfig,
        made: Option<PathBuf>,
    }

    impl Secured {
        /// `name` is that of the program, `protocols` what it offers by ALPN.
        pub(crate) fn new(flags: &TlsFlags, name: &str, protocols: &[&str]) -> Result<Secured> {
            let sentence = |error: lariat::tls::TlsError| Failure::Sentence(error.to_string());
            let (identity, made) = match (&flags.cert, &flags.key) {
                (Some(cert), Some(key)) => {
                    (Identity::from_files(cert, key).map_err(sentence)?, None)
                }
                _ => self_signed(name).map(|(identity, path)| (identity, Some(path)))?,
            };
            Ok(Secured { config: ServerConfig::new(identity).alpn(protocols), made })
        }
    }

    impl Drop for Secured {
        fn drop(&mut self) {
            if let Some(path) = &self.made {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// A certificate for localhost that is its own authority. Its key never leaves the process.
    fn self_signed(name: &str) -> Result<(Identity, PathBuf)> {
        let sentence = |error: &dyn std::fmt::Display| Failure::Sentence(error.to_string());
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).map_err(|error| sentence(&error))?;
        let pem = made.cert.pem();
        let path = std::env::temp_dir().join(format!("lariat-{name}-{}.pem", std::process::id()));
        std::fs::write(&path, &pem).map_err(|error| {
            Failure::Sentence(format!("cannot write {}: {error}", path.display()))
        })?;
        tell(format_args!("the certificate for clients to trust is {}", path.display()));
        let key = made.key_pair.serialize_pem();
        let identity = Identity::from_pem(pem.as_bytes(), key.as_bytes());
        identity.map(|identity| (identity, path)).map_err(|error| sentence(&error))
    }
}
