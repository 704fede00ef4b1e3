//! Listeners that stop, and others that take their addresses over.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::{Control, Endpoint, ErrorKind, Incoming, ListenOptions, ListenerId};

use crate::handles::Told;
use crate::kit::{Last, Play, Stage, data, echo, everywhere, says};

/// Listens at `addr` for one connection, which `who` serves.
fn listen(
    control: &mut Control<'_>,
    stage: &Arc<Names>,
    who: &'static str,
    addr: Endpoint,
) -> lariat::Result<ListenerId> {
    let names = Arc::clone(stage);
    control.listen(addr, move |incoming: &Incoming| {
        Some(Last::new(names.trace.wrap(who, echo()), incoming))
    })
}

struct Names {
    trace: lariat::sim::Trace,
}

/// Asks, and closes when it is answered.
fn asks() -> Play {
    says(b"hello").data(|cx, input| {
        if input.len() == 5 {
            input.consume_all();
            cx.close();
        }
        Ok(())
    })
}

/// Runs `moves` when a connection is accepted, with the address at which it was. It may begin to
/// listen there as "second", for a client that comes afterwards.
fn moved(stage: &mut Stage<'_>, moves: fn(&mut Control<'_>, &Arc<Names>, ListenerId, Endpoint)) {
    let names = Arc::new(Names { trace: stage.trace.clone() });
    let kept = Arc::clone(&names);
    let first = move |incoming: &Incoming| {
        let (names, old) = (Arc::clone(&kept), incoming.listener());
        let play = Play::new().opened(move |cx| {
            let addr = cx.local_addr().unwrap();
            moves(&mut cx.driver(), &names, old, addr);
            let asks = names.trace.wrap("later client", asks());
            cx.driver().connect(addr, asks);
            Ok(())
        });
        Some(kept.trace.wrap("first", play))
    };
    let listener = stage.driver.control().listen("127.0.0.1:0", first).unwrap();
    let addr = stage.driver.addresses(listener)[0];
    let client = Play::new().opened(|cx| {
        cx.close();
        Ok(())
    });
    stage.connect("client", addr, client);
    stage.run();
    let hello = data(b"hello");
    stage.expect("later client", &["opened", &hello, "closed finished by us"]);
    stage.expect("second", &["opened", &hello, "eof", "closed finished by the peer"]);
    stage.expect("first", &["opened", "eof", "closed finished by the peer"]);
    stage.expect("client", &["opened", "closed finished by us"]);
}

#[test]
fn a_listener_that_stops_frees_its_address_in_the_same_callback() {
    everywhere(|stage| {
        moved(stage, |control, names, old, addr| {
            let taken = listen(control, names, "second", addr).unwrap_err();
            assert_eq!(taken.kind(), ErrorKind::AddressInUse);
            control.stop_listening(old);
            assert!(control.addresses(old).is_empty());
            let new = listen(control, names, "second", addr).unwrap();
            assert_eq!(control.addresses(new), [addr]);
        });
    });
}

#[test]
fn one_that_no_loop_has_taken_over_frees_its_address_as_well() {
    everywhere(|stage| {
        moved(stage, |control, names, old, addr| {
            control.stop_listening(old);
            for _ in 0..3 {
                let fleeting = listen(control, names, "fleeting", addr).unwrap();
                control.stop_listening(fleeting);
            }
            listen(control, names, "second", addr).unwrap();
        });
        stage.expect("fleeting", &[] as &[&str]);
    });
}

#[test]
fn a_listener_that_stops_twice_does_not_stop_the_one_that_follows() {
    everywhere(|stage| {
        moved(stage, |control, names, old, addr| {
            control.stop_listening(old);
            listen(control, names, "second", addr).unwrap();
            control.stop_listening(old);
        });
    });
}

#[test]
fn a_closure_moves_a_listener() {
    everywhere(|stage| {
        let names = Arc::new(Names { trace: stage.trace.clone() });
        let old = stage.driver.control().listen("127.0.0.1:0", |_| None::<Play>).unwrap();
        let addr = stage.driver.addresses(old)[0];
        let done = Arc::new(Mutex::new(false));
        let does = Arc::clone(&done);
        let later = Duration::from_millis(10);
        stage.driver.control().set_timer(later, move |control| {
            control.stop_listening(old);
            listen(control, &names, "second", addr).unwrap();
            let asks = names.trace.wrap("client", asks());
            control.connect(addr, asks);
            *does.lock().unwrap() = true;
        });
        stage.run();
        stage.check(*done.lock().unwrap(), "the closure has run");
        stage.expect("client", &["opened", &data(b"hello"), "closed finished by us"]);
    });
}

/// Serves at `bound` and connects to it at 127.0.0.1; the factory tells the addresses it is shown,
/// and `opened` those of the connection.
fn addresses_shown(stage: &mut Stage<'_>, bound: &'static str) {
    let told = Told::default();
    let tells = told.clone();
    let trace = stage.trace.clone();
    let factory = move |incoming: &Incoming| {
        let seen = (incoming.local_addr(), incoming.peer());
        let tells = tells.clone();
        let play = Play::new().opened(move |cx| {
            tells.tell(format!("{}", seen == (cx.local_addr(), cx.peer_addr())));
            let here = Endpoint::from(([127, 0, 0, 1], seen.0.unwrap().port().unwrap()));
            tells.tell(format!("{}", seen.0 == Some(here)));
            Ok(())
        });
        Some(Last::new(trace.wrap("server", play), incoming))
    };
    let listener = stage.driver.control().listen(bound, factory).unwrap();
    let port = stage.driver.addresses(listener)[0].port().unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    stage.connect(
        "client",
        addr,
        Play::new().opened(|cx| {
            cx.close();
            Ok(())
        }),
    );
    stage.run();
    told.expect(stage, &["true", "true"]);
}

#[test]
fn a_factory_is_shown_the_local_address_of_a_single_address() {
    everywhere(|stage| addresses_shown(stage, "127.0.0.1:0"));
}

#[test]
fn a_factory_is_shown_the_one_local_address_of_a_listener_on_all_addresses() {
    everywhere(|stage| addresses_shown(stage, "0.0.0.0:0"));
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("planned");
    }
}

#[test]
fn a_listener_that_is_stopped_before_the_run_is_gone_however_its_factory_is_dropped() {
    everywhere(|stage| {
        stage.panics();
        let bomb = Bomb;
        let factory = move |_: &Incoming| {
            let _ = &bomb;
            Some(Play::new())
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = stage.driver.control().listen(addr, factory).unwrap();
        stage.driver.control().stop_listening(listener);
        stage.run();
        assert!(stage.driver.addresses(listener).is_empty());
    });
}

#[test]
fn a_handle_listens_with_the_options_that_it_is_given_by_address_and_by_name() {
    for addr in ["127.0.0.1:0", "localhost:0"] {
        everywhere(|stage| {
            let told = stage.trace.clone();
            let factory = move |incoming: &Incoming| {
                let play = Play::new().opened(|cx| {
                    assert_eq!(cx.limits().notes_max, 7);
                    cx.close();
                    Ok(())
                });
                Some(told.wrap("server", Last::new(play, incoming)))
            };
            let mut options = ListenOptions::default();
            options.limits.notes_max = 7;
            let done = |control: &mut Control<'_>, listener: lariat::Result<ListenerId>| {
                let addr = control.addresses(listener.unwrap())[0];
                control.connect(addr, Play::new());
            };
            stage.driver.handle().listen_with(addr, options, factory, done).unwrap();
            stage.run();
            stage.expect("server", &["opened", "closed finished by us"]);
        });
    }
}
