//! Certificates, made where they are needed. Ed25519: its signatures all have one length.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lariat::tls::rustls::pki_types::ServerName;
use lariat::tls::{DriverTime, Identity, Roots, rustls};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ED25519,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

/// An authority and what it issues.
pub(crate) struct Authority {
    certificate: Certificate,
    key: KeyPair,
    /// Its own certificate and those above it, but for the one that signs itself.
    above: String,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let (params, key) = (Authority::params(), key());
        let certificate = params.self_signed(&key).unwrap();
        Authority { certificate, key, above: String::new() }
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Two authorities of one name are told apart by their signatures alone.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// An authority that this one vouches for.
    pub(crate) fn authority(&self, change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let (mut params, key) = (Authority::params(), key());
        change(&mut params);
        let certificate = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        let above = certificate.pem() + &self.above;
        Authority { certificate, key, above }
    }

    /// The authority's own certificate in the place of a server's.
    pub(crate) fn own_identity(&self) -> Identity {
        Identity::from_pem(self.pem().as_bytes(), self.key.serialize_pem().as_bytes()).unwrap()
    }

    /// The chain and the key of a certificate for `name`, and the number that revokes it.
    pub(crate) fn issue_numbered(&self, name: &str) -> (String, String, SerialNumber) {
        let serial = SerialNumber::from(77);
        let (chain, key) = self.issue_pem(name, |p| p.serial_number = Some(serial.clone()));
        (chain, key, serial)
    }

    /// A list of revoked certificates, in PEM form.
    pub(crate) fn revoke(&self, serial: Option<SerialNumber>) -> String {
        self.revoke_until(2990, serial)
    }

    /// The same, to be replaced by another list in this year.
    pub(crate) fn revoke_until(&self, year: i32, serial: Option<SerialNumber>) -> String {
        let revoked = |serial_number| RevokedCertParams {
            serial_number,
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serial.map(revoked).into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.certificate, &self.key).unwrap().pem().unwrap()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(self.pem().as_bytes()).unwrap()
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// The chain and the key of a certificate for `name`, in PEM form.
    pub(crate) fn issue_pem(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = key();
        let issued = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        (issued.pem() + &self.above, key.serialize_pem())
    }

    pub(crate) fn issue_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let (chain, key) = self.issue_pem(name, change);
        Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    /// A client of rustls' own that trusts this authority, to be driven by hand.
    pub(crate) fn session_by_hand(&self, name: &str) -> rustls::ClientConnection {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_details(provider, Arc::new(DriverTime))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        rustls::ClientConnection::new(config.into(), name).unwrap()
    }

    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.issue_with(name, |_| {})
    }
}
