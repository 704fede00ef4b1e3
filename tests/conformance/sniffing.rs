//! Several protocols on one port, on every driver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lariat::proxy_protocol::AcceptProxy;
use lariat::sniff::{self, Choice, Seen, Sniff};
use lariat::tunnel::Tunnel;
use lariat::{Endpoint, Incoming, Protocol};

use crate::kit::{Last, Play, data, echo, everywhere, says, says_all};

/// Says who its client is, and everything that comes.
fn inner(who: &'static str) -> Play {
    Play::new()
        .opened(move |cx| {
            let ip = cx.peer_addr().ip().map(|ip| ip.to_string()).unwrap_or_default();
            write!(cx, "{who} for {ip}: ")?;
            Ok(())
        })
        .data(|cx, input| {
            cx.write(input);
            input.consume_all();
            Ok(())
        })
}

/// The protocol of a client by its first bytes.
fn choose(incoming: &Incoming, target: SocketAddr) -> Sniff {
    let accept = AcceptProxy::trusting(|peer: Endpoint| peer.ip().is_some());
    let announced = accept.factory(|_: &Incoming| Some(inner("announced")))(incoming);
    let mut announced = announced.map(Some).unwrap_or_default();
    Sniff::new(move |bytes| match (sniff::proxy(bytes), sniff::ssh(bytes)) {
        (Seen::Yes(()), _) => match announced.take() {
            Some(receiving) => Choice::take(receiving),
            None => Choice::refuse("not trusted"),
        },
        (_, Seen::Yes(())) => Choice::take(Tunnel::to(target)),
        (Seen::No, Seen::No) => Choice::take(inner("plain")),
        (Seen::More(count), _) | (_, Seen::More(count)) => Choice::More(count),
    })
    .when_silent(Duration::from_millis(700), || inner("first"))
}

#[test]
fn one_port_serves_each_client_by_its_first_bytes() {
    everywhere(|stage| {
        let target = stage.serve("target", echo);
        let left = Arc::new(AtomicUsize::new(4));
        let factory = move |incoming: &Incoming| {
            let last = left.fetch_sub(1, Ordering::Relaxed) == 1;
            let sniff = choose(incoming, target);
            Some::<Box<dyn Protocol + Send>>(match last {
                true => Box::new(Last::new(sniff, incoming)),
                false => Box::new(sniff),
            })
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = stage.driver.control().listen(addr, factory).unwrap();
        let port = stage.driver.addresses(listener)[0];
        let announced = b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\nhello";
        stage.connect("announced", port, says_all(announced));
        stage.connect("ssh", port, says_all(b"SSH-2.0-x\r\n"));
        stage.connect("plain", port, says_all(b"hello"));
        let silent = Play::new().data(|cx, input| {
            input.need(b"first for 127.0.0.1: ".len());
            if input.len() == b"first for 127.0.0.1: ".len() {
                input.consume_all();
                cx.close();
            }
            Ok(())
        });
        stage.connect("silent", port, silent);
        stage.run();
        for (who, answer) in [
            ("announced", &b"announced for 203.0.113.9: hello"[..]),
            ("ssh", b"SSH-2.0-x\r\n"),
            ("plain", b"plain for 127.0.0.1: hello"),
        ] {
            stage.expect(who, &["opened", &data(answer), "eof", "closed finished by the peer"]);
        }
        let first = data(b"first for 127.0.0.1: ");
        stage.expect("silent", &["opened", &first, "closed finished by us"]);
        let heard = data(b"SSH-2.0-x\r\n");
        stage.expect("target", &["opened", &heard, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_client_that_says_nothing_in_time_is_closed() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let factory = move |incoming: &Incoming| {
            let sniff = Sniff::new(|_| Choice::More(99)).deadline(Duration::from_millis(30));
            Some(Last::new(trace.wrap("server", sniff), incoming))
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = stage.driver.control().listen(addr, factory).unwrap();
        let port = stage.driver.addresses(listener)[0];
        stage.connect("client", port, says(b"hm"));
        stage.run();
        stage.expect("client", &["opened", "eof", "closed finished by the peer"]);
        let server = stage.trace.of("server");
        let ended = server.last().map(String::as_str);
        stage.check(
            ended == Some("closed timed out (handshake) by the runtime"),
            "the server's reason",
        );
    });
}
