//! Tunnels: relayed both ways, half-closes and resets passed on, and what the summary says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::tunnel::{ConnectError, Summary, Tunnel};
use lariat::{
    By, CloseKind, ConnectFailure, ConnectOptions, Context, DriverLimits, Input, IntoAddress,
    Limits, Outcome, Protocol, Timer, forward_protocol,
};

use crate::kit::{Last, Play, Stage, data, echo, everywhere, everywhere_with, says, says_all};

const NEXT: Timer = Timer::new(1);

#[derive(Clone, Default)]
struct Summaries(Arc<Mutex<Vec<Summary>>>);

impl Summaries {
    /// The one tunnel's.
    #[track_caller]
    fn only(&self, stage: &Stage<'_>) -> Summary {
        let summaries = self.0.lock().unwrap();
        stage.check(summaries.len() == 1, &format!("one summary, not {}", summaries.len()));
        summaries[0].clone()
    }

    fn keep(&self, tunnel: Tunnel) -> Tunnel {
        let summaries = self.clone();
        tunnel.on_end(move |_, summary| summaries.0.lock().unwrap().push(summary.clone()))
    }
}

/// Listens for one client, under the name `near`, and relays it to `target`.
fn relay(stage: &mut Stage<'_>, target: impl IntoAddress) -> (SocketAddr, Summaries) {
    relay_with(stage, target, Limits::default(), ConnectOptions::default())
}

fn relay_with(
    stage: &mut Stage<'_>,
    target: impl IntoAddress,
    limits: Limits,
    options: ConnectOptions,
) -> (SocketAddr, Summaries) {
    let (target, trace, summaries) =
        (target.into_address(), stage.trace.clone(), Summaries::default());
    let kept = summaries.clone();
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let factory = move |incoming: &lariat::Incoming| {
        let tunnel = kept.keep(Tunnel::to(&target).with_options(options.clone()));
        Some(Last::new(trace.wrap("near", tunnel), incoming))
    };
    let listener = stage.driver.control().listen_with(addr, limits.into(), factory).unwrap();
    (stage.driver.addresses(listener)[0].socket_addr().unwrap(), summaries)
}

#[test]
fn a_tunnel_relays_both_ways_and_passes_half_closes_on() {
    everywhere(|stage| {
        let target = stage.serve("target", || {
            echo().eof(|cx, _| {
                cx.write(b", world");
                cx.close();
                Ok(())
            })
        });
        let (proxy, summaries) = relay(stage, target);
        stage.connect("client", proxy, says_all(b"hello"));
        stage.run();
        let answer = data(b"hello, world");
        stage.expect("client", &["opened", &answer, "eof", "closed finished by the peer"]);
        let hello = data(b"hello");
        stage.expect("target", &["opened", &hello, "eof", "closed finished by the peer"]);
        let summary = summaries.only(stage);
        assert_eq!((summary.to_target(), summary.to_client()), (5, 12));
        assert_eq!(summary.target_addr(), &target.into_address());
        let (near, far) = (summary.client(), summary.target().unwrap());
        assert_eq!((near.received(), near.sent()), (5, 12));
        assert_eq!((far.received(), far.sent()), (12, 5));
        assert_eq!(far.peer_addr(), target);
        for end in [near, far] {
            assert_eq!(end.reason().kind(), CloseKind::Finished);
            assert!(end.reason().peer_finished());
        }
        let line = summary.to_string();
        let relayed = ": 5 bytes to the target, 12 to the client; client: finished by ";
        stage.check(line.contains(relayed), &line);
        stage.check(line.contains(", target: finished by "), &line);
    });
}

#[test]
fn a_target_may_finish_first_and_go_on_reading() {
    everywhere(|stage| {
        let target = stage.serve("target", || says_all(b"that is all"));
        let (proxy, summaries) = relay(stage, target);
        let client = Play::new().eof(|cx, _| {
            cx.write(b"and this is mine");
            cx.close();
            Ok(())
        });
        stage.connect("client", proxy, client);
        stage.run();
        let (theirs, mine) = (data(b"that is all"), data(b"and this is mine"));
        stage.expect("client", &["opened", &theirs, "eof", "closed finished by the peer"]);
        stage.expect("target", &["opened", &mine, "eof", "closed finished by the peer"]);
        let summary = summaries.only(stage);
        assert_eq!((summary.to_target(), summary.to_client()), (16, 11));
    });
}

/// Writes what is left while the other end takes it, and finishes.
fn produce(cx: &mut Context<'_>, left: &Mutex<usize>) -> Outcome {
    let mut left = left.lock().unwrap();
    while *left > 0 && !cx.is_congested() {
        cx.write(&[7; 4096]);
        *left -= 4096;
    }
    if *left == 0 {
        cx.shutdown_write();
    }
    Ok(())
}

#[test]
fn much_more_than_the_marks_arrives_whole_in_both_directions() {
    const MUCH: usize = 1 << 20;
    everywhere(|stage| {
        // Each writes as the other takes it; both at once.
        let flood = || {
            let left = Arc::new(Mutex::new(MUCH));
            let again = Arc::clone(&left);
            Play::new()
                .opened(move |cx| produce(cx, &left))
                .drained(move |cx| produce(cx, &again))
                .eof(|_, _| Ok(()))
        };
        let target = stage.serve("target", flood);
        let (proxy, summaries) = relay(stage, target);
        stage.connect("client", proxy, flood());
        stage.run();
        let summary = summaries.only(stage);
        assert_eq!((summary.to_target(), summary.to_client()), (MUCH as u64, MUCH as u64));
        let far = summary.target().unwrap();
        assert_eq!((far.received(), summary.client().received()), (MUCH as u64, MUCH as u64));
        assert_eq!((far.reason().unsent(), summary.client().reason().unsent()), (0, 0));
    });
}

#[test]
fn a_target_that_refuses_closes_the_client_with_a_plain_reason() {
    everywhere(|stage| {
        let target = stage.deserted();
        let (proxy, summaries) = relay(stage, target);
        stage.connect("client", proxy, says(b"is anybody there?"));
        stage.run();
        stage.expect("client", &["opened", "eof", "closed finished by the peer"]);
        let summary = summaries.only(stage);
        assert_eq!((summary.to_target(), summary.to_client()), (0, 0));
        let reason = summary.client().reason();
        assert_eq!((reason.kind(), reason.by()), (CloseKind::Protocol, By::Us));
        let error = reason.error().unwrap().downcast_ref::<ConnectError>().unwrap();
        assert_eq!(error.to_string(), format!("{target} was not reached: connect refused"));
        assert_eq!(error.target(), &target.into_address());
        let refused = CloseKind::Connect(ConnectFailure::Refused);
        assert_eq!(error.reason().kind(), refused);
        assert!(std::error::Error::source(error).is_some(), "what the system said");
        assert_eq!(summary.target().unwrap().reason().kind(), refused);
        let line = summary.to_string();
        stage.check(
            line.ends_with(&format!(
                "target: connect refused by the peer ({})",
                summary.target().unwrap().reason().error().unwrap()
            )),
            &line,
        );
    });
}

#[test]
fn a_reset_of_the_target_resets_the_client() {
    everywhere(|stage| {
        let target = stage.serve("target", || {
            Play::new().data(|cx, input| {
                input.consume_all();
                cx.abort();
                Ok(())
            })
        });
        let (proxy, summaries) = relay(stage, target);
        stage.connect("client", proxy, says(b"go away"));
        stage.run();
        stage.expect("client", &["opened", "closed reset by the peer"]);
        let summary = summaries.only(stage);
        assert_eq!(summary.target().unwrap().reason().kind(), CloseKind::Reset);
        assert_eq!(summary.client().reason().kind(), CloseKind::Aborted);
        assert_eq!(summary.to_target(), 7);
    });
}

#[test]
fn a_reset_of_the_client_resets_the_target() {
    everywhere(|stage| {
        let target = stage.serve("target", || says(b"welcome"));
        let (proxy, summaries) = relay(stage, target);
        let client = Play::new().data(|cx, input| {
            input.consume_all();
            cx.abort();
            Ok(())
        });
        stage.connect("client", proxy, client);
        stage.run();
        stage.expect("target", &["opened", "closed reset by the peer"]);
        let summary = summaries.only(stage);
        assert_eq!(summary.client().reason().kind(), CloseKind::Reset);
        assert_eq!(summary.target().unwrap().reason().kind(), CloseKind::Aborted);
    });
}

#[test]
fn a_deadline_of_one_end_ends_the_other() {
    everywhere(|stage| {
        let target = stage.serve("target", Play::new);
        let mut options = ConnectOptions::default();
        options.limits.idle = Some(Duration::from_millis(40));
        let (proxy, summaries) = relay_with(stage, target, Limits::default(), options);
        stage.connect("client", proxy, Play::new());
        stage.run();
        stage.expect("client", &["opened", "closed reset by the peer"]);
        let summary = summaries.only(stage);
        let idle = CloseKind::TimedOut(lariat::Deadline::Idle);
        assert_eq!(summary.target().unwrap().reason().kind(), idle);
        assert_eq!(summary.client().reason().kind(), CloseKind::Aborted);
    });
}

#[test]
fn a_close_from_elsewhere_closes_both_ends_in_order() {
    everywhere(|stage| {
        let target = stage.serve("target", || says(b"welcome"));
        let trace = stage.trace.clone();
        let summaries = Summaries::default();
        let kept = summaries.clone();
        let factory = move |incoming: &lariat::Incoming| {
            let tunnel = kept.keep(Tunnel::to(target));
            Some(Last::new(Closing(trace.wrap("near", tunnel)), incoming))
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = stage.driver.control().listen(addr, factory).unwrap();
        let proxy = stage.driver.addresses(listener)[0];
        let client = Play::new().data(|cx, input| {
            // The whole greeting may come in pieces.
            if input.len() == b"welcome".len() {
                input.consume_all();
                cx.write(b"close");
            }
            Ok(())
        });
        stage.connect("client", proxy, client);
        stage.run();
        let welcome = data(b"welcome");
        stage.expect("client", &["opened", &welcome, "eof", "closed finished by the peer"]);
        let of_target = stage.trace.of("target");
        let ended: Vec<&str> = of_target.iter().rev().take(2).map(String::as_str).collect();
        stage.check(ended == ["closed finished by the peer", "eof"], "the target's end");
        let summary = summaries.only(stage);
        for end in [summary.client(), summary.target().unwrap()] {
            assert_eq!((end.reason().kind(), end.reason().by()), (CloseKind::Finished, By::Us));
        }
        assert_eq!(summary.to_client(), 7);
    });
}

/// Closes its own connection, as a handle might, behind the first bytes of its client.
struct Closing<P>(P);

impl<P: Protocol> Protocol for Closing<P> {
    forward_protocol! {
        self => self.0;
        pass: opened eof drained timeout notified closed stopping name filter;
        own: data;
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.0.data(cx, input)?;
        let id = cx.id();
        cx.peer(id).close();
        Ok(())
    }
}

#[test]
fn a_shutdown_lets_a_tunnel_finish() {
    everywhere(|stage| {
        let target = stage.serve("target", || {
            echo().stopping(|_| Ok(())).eof(|cx, _| {
                cx.write(b", and good night");
                cx.close();
                Ok(())
            })
        });
        let (proxy, summaries) = relay(stage, target);
        let client = says(b"one")
            .data(|cx, input| {
                if input.len() >= 3 && !cx.driver().is_stopping() {
                    cx.driver().shutdown();
                    input.consume(3);
                }
                input.need(input.len() + 1);
                Ok(())
            })
            .stopping(|cx| {
                cx.write(b", two");
                cx.shutdown_write();
                Ok(())
            })
            .eof(|cx, rest| {
                assert_eq!(&**rest, b", two, and good night");
                rest.consume_all();
                cx.close();
                Ok(())
            });
        stage.connect("client", proxy, client);
        let report = stage.run();
        stage.check(report.aborted() == 0, "nothing was aborted");
        let summary = summaries.only(stage);
        assert_eq!((summary.to_target(), summary.to_client()), (8, 24));
    });
}

#[test]
fn the_end_of_the_drain_aborts_a_tunnel_that_goes_on() {
    let mut limits = DriverLimits::default();
    limits.drain = Duration::from_millis(50);
    everywhere_with(limits, |stage| {
        let target = stage.serve("target", || says(b"welcome").stopping(|_| Ok(())));
        let (proxy, summaries) = relay(stage, target);
        let client = Play::new().stopping(|_| Ok(())).data(|cx, input| {
            input.consume_all();
            cx.driver().shutdown();
            Ok(())
        });
        stage.connect("client", proxy, client);
        stage.run();
        let summary = summaries.only(stage);
        for end in [summary.client(), summary.target().unwrap()] {
            assert_ne!(end.reason().kind(), CloseKind::Finished);
        }
    });
}

#[test]
fn a_client_that_is_not_connected_has_no_target() {
    everywhere(|stage| {
        let nowhere = stage.deserted();
        let summaries = Summaries::default();
        let tunnel = summaries.keep(Tunnel::to(nowhere));
        stage.driver.control().connect(nowhere, tunnel);
        stage.run();
        let summary = summaries.only(stage);
        assert!(summary.target().is_none());
        let refused = CloseKind::Connect(ConnectFailure::Refused);
        assert_eq!(summary.client().reason().kind(), refused);
        assert_eq!((summary.to_target(), summary.to_client()), (0, 0));
        assert!(summary.to_string().contains("; client: connect refused by the peer ("));
    });
}

#[test]
fn what_cannot_work_is_the_reason_of_the_clients_end() {
    everywhere(|stage| {
        let target = stage.deserted();
        let mut options = ConnectOptions::default();
        options.limits.read_budget = 0;
        let (proxy, summaries) = relay_with(stage, target, Limits::default(), options);
        stage.connect("client", proxy, Play::new());
        let mut limits = Limits::default();
        limits.notes_max = 0;
        let (other, deaf) = relay_with(stage, target, limits, ConnectOptions::default());
        stage.connect("client", other, Play::new());
        stage.run();
        for (summaries, named) in [(summaries, "read_budget"), (deaf, "notes_max")] {
            let summary = summaries.only(stage);
            let reason = summary.client().reason();
            assert_eq!(reason.kind(), CloseKind::Protocol);
            assert!(reason.error().unwrap().to_string().contains(named), "{reason}");
            assert!(summary.target().is_none());
        }
    });
}

#[test]
fn a_protocol_becomes_a_tunnel_and_only_what_follows_is_counted() {
    everywhere(|stage| {
        let target = stage.serve("target", echo);
        let summaries = Summaries::default();
        let kept = summaries.clone();
        let proxy = stage.serve("near", move || {
            let kept = kept.clone();
            says(b"whereto?").data(move |cx, input| {
                if input.len() < 3 {
                    input.need(3);
                    return Ok(());
                }
                input.consume(3);
                cx.write(b"ok");
                cx.replace(kept.keep(Tunnel::to(target)));
                Ok(())
            })
        });
        let client = Play::new().opened(|cx| {
            cx.write(b"you");
            cx.set_timer(NEXT, Duration::from_millis(20));
            Ok(())
        });
        let client = client.timeout(|cx, _| {
            cx.write(b"hello");
            cx.shutdown_write();
            Ok(())
        });
        stage.connect("client", proxy, client);
        stage.run();
        let summary = summaries.only(stage);
        assert_eq!((summary.to_target(), summary.to_client()), (5, 5));
        assert_eq!(summary.client().reason().bytes_out(), 15);
    });
}
