//! Certificates that do not pass, one chain for each defect; mutual TLS and resumption on every
//! driver.

use std::sync::Arc;

use lariat::sim::Sim;
use lariat::tls::{ClientConfig, Identity, Roots, ServerConfig, TlsVersion, rustls};
use lariat::{By, CloseKind, FilterFailure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, NameConstraints, date_time_ymd,
};

use crate::certs::Authority;
use crate::kit::{everywhere, session_on};

// ---- T8: what a client refuses ------------------------------------------------------------------

/// What the client hears of a server with this certificate.
fn refused(identity: Identity, roots: &Roots) -> String {
    let (server, client) = (ServerConfig::new(identity), ClientConfig::new(roots));
    let (served, heard) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"x");
    assert!(!served.has_opened() && !heard.has_opened());
    assert!(served.bytes().is_empty() && heard.bytes().is_empty());
    let reason = heard.reason();
    assert_eq!(reason.kind(), CloseKind::Filter(FilterFailure::Failed));
    assert_eq!(reason.by(), By::Peer);
    assert!(served.error().starts_with("the peer has refused the session"), "{}", served.error());
    heard.error()
}

fn passes(identity: Identity, roots: &Roots) {
    let (server, client) = (ServerConfig::new(identity), ClientConfig::new(roots));
    let (_, heard) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"x");
    assert_eq!(heard.bytes(), b"x", "{}", heard.reason());
}

#[test]
fn t8_a_chain_with_a_sound_authority_between_passes() {
    let root = Authority::new();
    let between = root.authority(|_| {});
    passes(between.issue("localhost"), &root.roots());
}

#[test]
fn t8_a_chain_is_refused_for_each_defect_of_the_authority_between() {
    type Change = fn(&mut CertificateParams);
    let defects: [(&str, Change, &str); 6] = [
        (
            "it is no authority",
            |params| params.is_ca = IsCa::ExplicitNoCa,
            "the peer's certificate is not valid: ",
        ),
        (
            "it does not say that it is one",
            |params| params.is_ca = IsCa::NoCa,
            "the peer's certificate is not valid: ",
        ),
        (
            "it has expired",
            |params| params.not_after = date_time_ymd(2001, 1, 1),
            "the peer's certificate has expired",
        ),
        (
            "it is not valid yet",
            |params| params.not_before = date_time_ymd(2990, 1, 1),
            "the peer's certificate is not valid yet",
        ),
        (
            "it may issue for other names alone",
            |params| {
                params.name_constraints = Some(NameConstraints {
                    permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
                    excluded_subtrees: Vec::new(),
                });
            },
            "the peer's certificate is not valid: ",
        ),
        (
            "it may issue for clients alone",
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            "the peer's certificate is not for this purpose",
        ),
    ];
    for (defect, change, sentence) in defects {
        let root = Authority::new();
        let between = root.authority(change);
        let said = refused(between.issue("localhost"), &root.roots());
        assert!(said.starts_with(sentence), "{defect}: {said}");
    }
}

#[test]
fn t8_a_chain_longer_than_its_authority_allows_is_refused() {
    let root = Authority::new();
    let first = root.authority(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    passes(first.issue("localhost"), &root.roots());
    let second = first.authority(|_| {});
    let said = refused(second.issue("localhost"), &root.roots());
    assert!(said.starts_with("the peer's certificate is not"), "{said}");
}

#[test]
fn t8_a_chain_without_its_middle_or_with_a_strangers_is_refused() {
    let root = Authority::new();
    let between = root.authority(|_| {});
    let (chain, key) = between.issue_pem("localhost", |_| {});
    let first = chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    let alone = Identity::from_pem(first.as_bytes(), key.as_bytes()).unwrap();
    let unknown = "the peer's certificate is not issued by a trusted authority";
    assert_eq!(refused(alone, &root.roots()), unknown);
    let strangers = format!("{first}{}", root.authority(|_| {}).pem());
    let mixed = Identity::from_pem(strangers.as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(refused(mixed, &root.roots()), unknown);
}

#[test]
fn t8_a_certificate_that_has_signed_itself_is_refused_unless_it_is_trusted() {
    let names = vec!["localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (pem, key) = (made.cert.pem(), made.key_pair.serialize_pem());
    let identity = Identity::from_pem(pem.as_bytes(), key.as_bytes()).unwrap();
    let said = refused(identity.clone(), &Authority::new().roots());
    assert_eq!(said, "the peer's certificate is not issued by a trusted authority");
    passes(identity, &Roots::from_pem(pem.as_bytes()).unwrap());
    // One for itself is no authority for others.
    let authority = Authority::new();
    let said = refused(authority.own_identity(), &authority.roots());
    assert!(said.starts_with("the peer's certificate is not valid: "), "{said}");
}

#[test]
fn t8_a_name_without_an_entry_for_it_is_refused() {
    let authority = Authority::new();
    let other = "the peer's certificate is for another name";
    let common_name = authority.issue_with("elsewhere", |params| {
        params.distinguished_name.push(DnType::CommonName, "localhost");
    });
    assert_eq!(refused(common_name, &authority.roots()), other);
    // A star stands for one label, and not for the whole of a name.
    for (pattern, name, fits) in [
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "a.b.example.com", false),
        ("*.example.com", "example.com", false),
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.1", "127.0.0.2", false),
        ("localhost", "LOCALHOST", true),
    ] {
        let server = ServerConfig::new(authority.issue(pattern));
        let client = ClientConfig::new(&authority.roots());
        let (_, heard) = session_on(&mut Sim::new(1), &server, &client, name, b"x");
        assert_eq!(heard.has_opened(), fits, "{pattern} for {name}: {}", heard.reason());
        if !fits {
            assert_eq!(heard.error(), other);
        }
    }
}

#[test]
fn t10_a_long_chain_is_refused_soon() {
    let root = Authority::new();
    let mut last = root.authority(|_| {});
    for _ in 0..20 {
        last = last.authority(|_| {});
    }
    let said = refused(last.issue("localhost"), &root.roots());
    assert!(said.starts_with("the peer's certificate is not"), "{said}");
}

#[test]
fn t10_authorities_that_may_all_have_issued_each_other_are_refused_soon() {
    fn one_of_many(params: &mut CertificateParams) {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "one of many");
    }
    let above = Authority::new().authority(one_of_many);
    // Each of them names the 60 as its issuer: 60 to the sixth power paths, and none is trusted.
    let many: Vec<_> = (0..60).map(|_| above.authority(one_of_many)).collect();
    let (chain, key) = many[0].issue_pem("localhost", |_| {});
    let leaf = chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    let all: String = many.iter().map(Authority::pem).collect();
    let identity = Identity::from_pem(format!("{leaf}{all}").as_bytes(), key.as_bytes()).unwrap();
    let said = refused(identity, &Authority::new().roots());
    assert!(said.starts_with("the peer's certificate is not"), "{said}");
}

// ---- T9: mutual TLS and resumption --------------------------------------------------------------

/// A client of one version alone, with a certificate or without.
fn client(
    authority: &Authority,
    identity: Option<Identity>,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    let pem = authority.pem();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let resolver = rustls::sign::SingleCertAndKey::from(identity.certified_key());
            builder.with_client_cert_resolver(Arc::new(resolver))
        }
    };
    ClientConfig::from(Arc::new(config))
}

const VERSIONS: [(&rustls::SupportedProtocolVersion, TlsVersion); 2] =
    [(&rustls::version::TLS12, TlsVersion::Tls12), (&rustls::version::TLS13, TlsVersion::Tls13)];

#[test]
fn t9_who_asks_for_a_certificate_and_who_has_one_decide_alike_on_every_driver() {
    let authority = Authority::new();
    let purpose = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2001, 1, 1);
    let clients = [
        (None, Err("the peer has not shown a certificate")),
        (Some(authority.issue("client")), Ok(1)),
        (Some(authority.authority(|_| {}).issue("client")), Ok(2)),
        (
            Some(Authority::new().issue("client")),
            Err("the peer's certificate is not issued by a trusted authority"),
        ),
        (Some(authority.issue_with("client", expired)), Err("the peer's certificate has expired")),
        (
            Some(authority.issue_with("client", purpose)),
            Err("the peer's certificate is not for this purpose"),
        ),
    ];
    let asking = ServerConfig::mutual(authority.issue("localhost"), &authority.roots()).unwrap();
    let not_asking = ServerConfig::new(authority.issue("localhost"));
    for (identity, expected) in clients {
        for (version, spoken) in VERSIONS {
            let client = client(&authority, identity.clone(), version);
            everywhere(|driver| {
                let (served, _) = session_on(driver, &asking, &client, "localhost", b"x");
                match expected {
                    Ok(certificates) => {
                        assert_eq!(served.bytes(), b"x");
                        let session = served.session();
                        assert_eq!(session.version(), spoken);
                        assert_eq!(session.peer_certificates().len(), certificates);
                    }
                    Err(sentence) => {
                        assert!(!served.has_opened() && served.bytes().is_empty());
                        assert_eq!(served.error(), sentence);
                    }
                }
            });
            let sim = &mut Sim::new(1);
            let (served, _) = session_on(sim, &not_asking, &client, "localhost", b"x");
            assert_eq!(served.bytes(), b"x", "a server that does not ask takes anyone");
            assert!(served.session().peer_certificates().is_empty());
        }
    }
}

#[test]
fn t9_a_resumed_session_keeps_its_identity_on_every_driver() {
    let authority = Authority::new();
    for (version, spoken) in VERSIONS {
        for mutual in [false, true] {
            let identity = authority.issue("localhost");
            let server = match mutual {
                true => ServerConfig::mutual(identity, &authority.roots()).unwrap(),
                false => ServerConfig::new(identity),
            };
            let own = mutual.then(|| authority.issue("client"));
            let client = client(&authority, own, version);
            let sim = &mut Sim::new(1);
            let (first, _) = session_on(sim, &server, &client, "localhost", b"one");
            assert!(!first.session().is_resumed());
            everywhere(|driver| {
                let (served, heard) = session_on(driver, &server, &client, "localhost", b"two");
                assert!(served.session().is_resumed() && heard.session().is_resumed());
                assert_eq!(served.session().version(), spoken);
                let (before, now) = (first.session(), served.session());
                assert_eq!(now.peer_certificates(), before.peer_certificates());
                assert_eq!(now.peer_certificates().len(), usize::from(mutual));
                assert_eq!(now.server_name(), Some("localhost"));
            });
        }
    }
}

#[test]
fn t9_a_session_is_not_resumed_for_another_name() {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue("localhost"));
    server.add_name("other.example", authority.issue("other.example")).unwrap();
    for (version, _) in VERSIONS {
        let client = client(&authority, None, version);
        for (name, resumed) in [
            ("localhost", false),
            ("other.example", false),
            ("localhost", true),
            ("other.example", true),
        ] {
            let (served, heard) = session_on(&mut Sim::new(1), &server, &client, name, b"x");
            assert_eq!(heard.bytes(), b"x", "{name}: {}", heard.reason());
            assert_eq!(served.session().is_resumed(), resumed, "{name}");
            assert_eq!(served.session().server_name(), Some(name));
        }
    }
}

#[test]
fn t9_a_revoked_certificate_is_refused_by_either_end() {
    let authority = Authority::new();
    let other = authority.authority(|_| {});
    for revoked in [false, true] {
        let (chain, key, serial) = authority.issue_numbered("localhost");
        let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let list = authority.revoke(revoked.then_some(serial));
        let roots = authority.roots().with_revoked(list.as_bytes()).unwrap();
        let client = ClientConfig::new(&roots);
        let server = ServerConfig::new(identity.clone());
        let (_, heard) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"x");
        let server = ServerConfig::mutual(authority.issue("localhost"), &roots).unwrap();
        let client = ClientConfig::mutual(&authority.roots(), identity);
        let (served, _) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"x");
        for end in [&heard, &served] {
            assert_eq!(end.has_opened(), !revoked, "{}", end.reason());
            if revoked {
                assert_eq!(end.error(), "the peer's certificate is revoked");
            }
        }
        // An authority that has no list says nothing against its certificates.
        let server = ServerConfig::new(other.issue("localhost"));
        let client = ClientConfig::new(&roots);
        let (_, heard) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"x");
        assert!(heard.has_opened(), "{}", heard.reason());
    }
    let bad = authority.roots().with_revoked(b"no list").unwrap_err();
    let garbled = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let unread = authority.roots().with_revoked(garbled.as_bytes()).unwrap_err();
    assert!(unread.to_string().contains("list of revoked certificates cannot be read"), "{unread}");
    assert!(bad.to_string().contains("no list of revoked certificates in it"), "{bad}");
}

#[test]
fn t9_a_list_of_revoked_certificates_that_has_expired_still_holds() {
    let authority = Authority::new();
    let (chain, key, serial) = authority.issue_numbered("localhost");
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let list = authority.revoke_until(2021, Some(serial));
    let roots = authority.roots().with_revoked(list.as_bytes()).unwrap();
    assert_eq!(refused(identity, &roots), "the peer's certificate is revoked");
    passes(authority.issue("localhost"), &roots);
}

#[test]
fn t9_lists_of_revoked_certificates_add_up() {
    let [first, second] = [(); 2].map(|()| Authority::new());
    let both = Roots::from_pem((first.pem() + &second.pem()).as_bytes()).unwrap();
    let of = |authority: &Authority| {
        let (chain, key, serial) = authority.issue_numbered("localhost");
        let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        (identity, authority.revoke(Some(serial)))
    };
    let (one, list_of_one) = of(&first);
    let (two, list_of_two) = of(&second);
    let apart = both.clone().with_revoked(list_of_one.as_bytes()).unwrap();
    let apart = apart.with_revoked(list_of_two.as_bytes()).unwrap();
    let together = both.with_revoked((list_of_one + &list_of_two).as_bytes()).unwrap();
    for roots in [apart, together] {
        for identity in [&one, &two] {
            assert_eq!(refused(identity.clone(), &roots), "the peer's certificate is revoked");
        }
        passes(first.issue("localhost"), &roots);
        passes(second.issue("localhost"), &roots);
    }
}

#[test]
fn the_whole_chain_of_a_peer_is_in_its_session() {
    let root = Authority::new();
    let between = root.authority(|_| {});
    let identity = between.issue("localhost");
    let server = ServerConfig::mutual(identity.clone(), &root.roots()).unwrap();
    let client = ClientConfig::mutual(&root.roots(), between.issue("client"));
    let (served, heard) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"x");
    assert_eq!(heard.session().peer_certificates(), identity.certified_key().cert);
    assert_eq!(served.session().peer_certificates().len(), 2);
}

#[test]
fn a_handshake_in_which_the_server_asks_for_another_group_is_none_that_is_resumed() {
    let authority = Authority::new();
    let mut provider = rustls::crypto::ring::default_provider();
    // A client begins with the first group that it has.
    provider.kx_groups.drain(..1);
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            authority.issue("localhost").certified_key(),
        )));
    let server = ServerConfig::from(Arc::new(server));
    let client = ClientConfig::new(&authority.roots());
    for resumed in [false, true] {
        let (served, heard) = session_on(&mut Sim::new(1), &server, &client, "localhost", b"x");
        for end in [&served, &heard] {
            assert_eq!(end.session().version(), TlsVersion::Tls13);
            assert_eq!(end.session().is_resumed(), resumed);
        }
    }
}
