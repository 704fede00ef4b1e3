//! Certificates, made where they are needed. Ed25519: its signatures all have one length.

use std::sync::atomic::{AtomicUsize, Ordering};

use lariat::tls::{Identity, Roots};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ED25519,
};

/// An authority and what it issues.
pub(crate) struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Two authorities of one name are told apart by their signatures alone.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = key();
        Authority { certificate: params.self_signed(&key).unwrap(), key }
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
        (issued.pem(), key.serialize_pem())
    }

    pub(crate) fn issue_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let (chain, key) = self.issue_pem(name, change);
        Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.issue_with(name, |_| {})
    }
}
