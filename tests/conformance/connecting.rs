//! Outgoing connections: where they come from, and how they are cancelled.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::{CloseKind, ConnectFailure, ConnectOptions, Endpoint, Incoming};

use crate::kit::{Last, Play, data, everywhere, says_all};

const CANCELLED: CloseKind = CloseKind::Connect(ConnectFailure::Cancelled);

#[test]
fn a_client_comes_from_the_address_that_it_is_bound_to() {
    everywhere(|stage| {
        let seen: Arc<Mutex<Option<Endpoint>>> = Arc::default();
        let (peers, trace) = (Arc::clone(&seen), stage.trace.clone());
        let factory = move |incoming: &Incoming| {
            *peers.lock().unwrap() = Some(incoming.peer());
            Some(Last::new(trace.wrap("server", Play::new()), incoming))
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = stage.driver.control().listen(addr, factory).unwrap();
        let addr = stage.driver.addresses(listener)[0];
        let mut options = ConnectOptions::default();
        options.bind = Some(SocketAddr::from(([127, 0, 0, 2], 0)).into());
        let own: Arc<Mutex<Option<Endpoint>>> = Arc::default();
        let kept = Arc::clone(&own);
        let client = says_all(b"hello").closed(|_, _| ());
        let client = client.data(|_, _| Ok(())).eof(move |cx, _| {
            *kept.lock().unwrap() = cx.local_addr();
            cx.close();
            Ok(())
        });
        let client = stage.trace.wrap("client", client);
        stage.driver.control().connect_with(addr, options, client).unwrap();
        stage.run();
        let hello = data(b"hello");
        stage.expect("server", &["opened", &hello, "eof", "closed finished by the peer"]);
        let (seen, own) = (seen.lock().unwrap().unwrap(), own.lock().unwrap().unwrap());
        assert_eq!(seen, own, "both ends say the same");
        assert_eq!(seen.ip().unwrap().to_string(), "127.0.0.2");
        assert_ne!(seen.port(), Some(0));
    });
}

#[test]
fn a_connect_is_cancelled_by_its_id_before_anything_was_tried() {
    everywhere(|stage| {
        for aborts in [false, true] {
            let addr = stage.deserted();
            let name = if aborts { "aborted" } else { "closed" };
            let id = stage.connect(name, addr, Play::new());
            let mut control = stage.driver.control();
            let mut peer = control.peer(id);
            peer.write(b"never sent");
            if aborts {
                peer.abort()
            } else {
                peer.close()
            }
            drop(control);
            stage.run();
            let told = stage.trace.of(name);
            assert_eq!(told.len(), 1, "it never opened: {told:?}");
            assert_eq!(told[0], format!("closed {CANCELLED} by us"));
        }
    });
}

#[test]
fn a_callback_cancels_the_connect_that_it_has_begun() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let (nobody, trace) = (stage.deserted(), stage.trace.clone());
        let client = Play::new().opened(move |cx| {
            let id = cx.connect(nobody, trace.wrap("second", Play::new()));
            assert!(cx.peer(id).is_open(), "the id is valid at once");
            cx.peer(id).close();
            cx.close();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.expect("second", &[format!("closed {CANCELLED} by us")]);
    });
}

#[test]
fn d2_an_address_that_is_refused_lets_the_next_one_be_tried_at_once() {
    everywhere(|stage| {
        let mut addrs: Vec<_> = (0..16).map(|_| stage.deserted()).collect();
        addrs.push(stage.serve("server", Play::new));
        let client = Play::new().opened(|cx| {
            // Four seconds and more, if each of them had its quarter of a second.
            assert!(cx.age() < Duration::from_secs(3), "{:?}", cx.age());
            cx.close();
            Ok(())
        });
        stage.connect("client", addrs, client);
        stage.run();
        stage.expect("client", &["opened", "closed finished by us"]);
    });
}
