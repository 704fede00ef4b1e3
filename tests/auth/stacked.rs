//! Two filters on one connection: it fails before it opens, and nobody is served without the one
//! that was left out.

use lariat::auth::{ClientToken, Sealed, ServerTokens};
use lariat::tls::{ClientConfig, Identity, Roots, ServerConfig, Tls};
use lariat::{CloseKind, Driver, FilterFailure, Incoming, Protocol};

use crate::kit::{End, Heard, NAME, Raw, Watched, everywhere, token};

/// What both sides of both kinds need.
struct Configs {
    tokens: ServerTokens,
    mine: ClientToken,
    server: ServerConfig,
    client: ClientConfig,
}

impl Configs {
    fn new() -> Configs {
        let tokens = ServerTokens::new();
        tokens.add(NAME, token(1)).unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.key_pair.serialize_pem());
        let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        Configs {
            tokens,
            mine: ClientToken::new(NAME, token(1)).unwrap(),
            server: ServerConfig::new(identity),
            client: ClientConfig::new(&Roots::from_pem(chain.as_bytes()).unwrap()),
        }
    }
}

/// A client that speaks in clear meets what `make` makes.
fn refused<P: Protocol + Send + 'static>(
    driver: &mut dyn Driver,
    make: impl Fn(&Configs, End) -> P + Send + Sync + 'static,
) {
    let (configs, whole, inner, peer) =
        (Configs::new(), Heard::default(), Heard::default(), Heard::default());
    let (watched, served) = (whole.clone(), inner.clone());
    let factory = move |incoming: &Incoming| {
        let inner = make(&configs, End::server(&served, None));
        let (heard, listener) = (watched.clone(), Some(incoming.listener()));
        Some(Watched { inner, heard, listener })
    };
    let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
    let addr = driver.addresses(listener)[0];
    driver.control().connect(addr, Raw::new(&peer, b"in clear"));
    driver.run().unwrap();
    let reason = whole.reason();
    assert_eq!(reason.kind(), CloseKind::Filter(FilterFailure::Failed), "{reason}");
    let words = "the protocol inside wants a filter too, and a connection has one";
    assert_eq!(reason.error().unwrap().to_string(), words);
    assert_eq!((inner.name(), inner.bytes(), peer.bytes()), (None, Vec::new(), Vec::new()));
}

#[test]
fn one_filter_inside_another_is_refused_and_never_left_out() {
    everywhere(|driver| {
        refused(driver, |all, end| Tls::server(&all.server, Sealed::server(&all.tokens, end)));
    });
    everywhere(|driver| {
        refused(driver, |all, end| Sealed::server(&all.tokens, Tls::server(&all.server, end)));
    });
    everywhere(|driver| {
        refused(driver, |all, end| Tls::server(&all.server, Tls::server(&all.server, end)));
    });
    everywhere(|driver| {
        refused(driver, |all, end| Sealed::server(&all.tokens, Sealed::server(&all.tokens, end)));
    });
}

#[test]
fn a_clients_filter_inside_another_is_refused_too() {
    everywhere(|driver| {
        let (configs, heard, inner) = (Configs::new(), Heard::default(), Heard::default());
        let kept = Heard::default();
        let (peer, last) = (kept.clone(), Heard::default());
        let factory = move |incoming: &Incoming| {
            let inner = Raw::new(&peer, b"");
            let (heard, listener) = (last.clone(), Some(incoming.listener()));
            Some(Watched { inner, heard, listener })
        };
        let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
        let addr = driver.addresses(listener)[0];
        let sealed = Sealed::client(&configs.mine, End::client(&inner, b"secret"));
        let both = Tls::client(&configs.client, "localhost", sealed).unwrap();
        let both = Watched { inner: both, heard: heard.clone(), listener: None };
        driver.control().connect(addr, both);
        driver.run().unwrap();
        let reason = heard.reason();
        assert_eq!(reason.kind(), CloseKind::Filter(FilterFailure::Failed), "{reason}");
        assert_eq!((inner.name(), kept.bytes()), (None, Vec::new()), "nothing was sent");
    });
}
