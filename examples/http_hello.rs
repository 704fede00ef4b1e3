//! A small web server on `lariat::http`: a page, an echo, the counters, and a stream of events.
//!
//! It shows a handler that answers at once, one that streams a body of any length through without
//! keeping it, and one that goes on answering by a timer. Run it, and talk to it from a second
//! terminal:
//!
//! ```text
//! $ cargo run --release --example http_hello
//! listening on 127.0.0.1:8080 (tcp, reactor, 1 thread)
//!
//! $ curl http://127.0.0.1:8080/
//! Hello from lariat.
//! $ curl --data-binary @Cargo.toml http://127.0.0.1:8080/echo
//! $ curl http://127.0.0.1:8080/metrics
//! $ curl -N http://127.0.0.1:8080/stream
//! ```
//!
//! `--tls-self-signed` serves the same over TLS, and says which file holds the certificate:
//! `curl --cacert FILE https://localhost:8080/`. `--tls-cert` and `--tls-key` take files of yours.
//!
//! `--stats 1s` prints a line each second: connections, requests and bytes per second.
//!
//! `--threads 4` runs four reactors, each on a thread of its own. With `--driver blocking` the same
//! handler runs on threads. `/metrics` has the counters, of all reactors together, in Prometheus'
//! text form, `/stream` an event every second. What is not there is answered 404, a method that a
//! path does not know 405 with those it does. `--help` has the command line; what all examples
//! share is in `common/`.

mod common;

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lariat::http::{Event, Handler, Header, Http, Length, Request, Response, Status};
use lariat::{CloseReason, Context, JobError, ListenOptions, Metrics, Note, Outcome, Timer};

use common::{DriverKind, Options, Program};

const PROGRAM: Program = Program {
    name: "http_hello",
    about: "a page, an echo, counters and a stream of events over HTTP/1.1",
    addr: "127.0.0.1:8080",
    try_this: "curl -v http://127.0.0.1:8080/",
    drivers: &[DriverKind::Reactor, DriverKind::Blocking],
    threads: "a thread per connection",
    idle_timeout: Some("close after T without a byte [60s between requests]"),
    scales: true,
    udp: false,
    tls: Some(&["http/1.1"]),
    counted: Some(("requests", &REQUESTS)),
};

/// Requests so far, on all threads. The counters of a driver know bytes and callbacks, not HTTP.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

const HELLO: &[u8] = b"Hello from lariat.\n";
const PROMETHEUS: Header<'static> = Header::literal("content-type", "text/plain; version=0.0.4");
/// Of the stream: the next event is due.
const TICK: Timer = Timer::new(1);

/// One connection's answers.
struct Hello {
    route: Route,
    /// Tell each close on standard error.
    tells: bool,
}

/// What the present request is answered with, where that takes more than one callback.
enum Route {
    AtOnce,
    Echo(Length),
    Stream { count: u64 },
}

impl Handler for Hello {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        self.route = Route::AtOnce;
        match (request.path(), request.method()) {
            ("/", "GET" | "HEAD") => response.send(cx, Status::OK, &[Header::TEXT], HELLO),
            // The answer begins with the body, so that a client that waits for `100 Continue` is
            // asked for it first.
            ("/echo", _) => self.route = Route::Echo(request.length()),
            // It waits for the answer of each reactor, so it is a job: a loop that waited for
            // others would serve nobody.
            ("/metrics", "GET" | "HEAD") => cx.offload(common::metrics),
            ("/stream", "GET") => {
                response.start_events(cx);
                self.route = Route::Stream { count: 0 };
                self.tick(cx, response)?;
            }
            ("/" | "/metrics", method) => other_method(cx, response, method, "GET, HEAD, OPTIONS"),
            ("/stream", "HEAD") => {
                response.start_events(cx);
                response.finish(cx);
            }
            ("/stream", method) => other_method(cx, response, method, "GET, HEAD, OPTIONS"),
            ("*", "OPTIONS") => response.send(cx, Status::NO_CONTENT, &[], b""),
            _ => response.send(cx, Status::NOT_FOUND, &[Header::TEXT], b"There is no such page.\n"),
        }
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], response: &mut Response) -> Outcome {
        if matches!(self.route, Route::Echo(_)) {
            self.start_echo(cx, response);
            // Slow readers need no care: as this is caused by input, it holds the input back.
            response.write(cx, part);
        }
        Ok(())
    }

    fn complete(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        if matches!(self.route, Route::Echo(_)) {
            self.start_echo(cx, response);
            response.finish(cx);
        }
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note, response: &mut Response) -> Outcome {
        match note.downcast::<Result<Metrics, JobError>>() {
            Ok(Ok(metrics)) => response.send(cx, Status::OK, &[PROMETHEUS], exposition(&metrics)),
            // Too many ask at one time, or a reactor has not answered within 30 s.
            _ => response.send(cx, Status::SERVICE_UNAVAILABLE, &[Header::TEXT], b"Try later.\n"),
        }
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, response: &mut Response) -> Outcome {
        self.tick(cx, response)
    }

    fn stopping(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        if let Route::Stream { .. } = self.route {
            response.finish(cx);
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        if self.tells {
            common::tell(format_args!("closed {}: {reason}", cx.peer_addr()));
        }
    }
}

impl Hello {
    fn start_echo(&mut self, cx: &mut Context<'_>, response: &mut Response) {
        if !response.is_due() {
            return;
        }
        match self.route {
            Route::Echo(Length::Unknown) => response.start(cx, Status::OK, &[Header::BYTES]),
            Route::Echo(Length::Known(length)) => {
                response.start_sized(cx, Status::OK, &[Header::BYTES], length);
            }
            _ => response.start_sized(cx, Status::OK, &[Header::BYTES], 0),
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        // A client that does not read gets no more: a producer looks before it writes.
        if let Route::Stream { count } = &mut self.route {
            if !cx.is_congested() {
                *count += 1;
                response.event(cx, Event::new(&count.to_string()).named("tick")?);
            }
            cx.set_timer(TICK, Duration::from_secs(1));
        }
        Ok(())
    }
}

/// 204 for OPTIONS, 405 for anything else; both say what there is.
fn other_method(
    cx: &mut Context<'_>,
    response: &mut Response,
    method: &str,
    allowed: &'static str,
) {
    let allow = Header::literal("allow", allowed);
    if method == "OPTIONS" {
        response.send(cx, Status::NO_CONTENT, &[allow], b"");
    } else {
        let body = format!("Methods of this page: {allowed}.\n");
        response.send(cx, Status::METHOD_NOT_ALLOWED, &[allow, Header::TEXT], body);
    }
}

/// The counters in Prometheus' text form.
fn exposition(metrics: &Metrics) -> String {
    let mut text = String::new();
    let counters = [
        ("turns", "Turns of the loop.", metrics.turns),
        ("events", "Readiness events from the system.", metrics.events),
        ("reads", "Calls that read from a socket.", metrics.reads),
        ("writes", "Calls that wrote to a socket.", metrics.writes),
        ("received_bytes", "Bytes read from sockets.", metrics.bytes_in),
        ("sent_bytes", "Bytes written to sockets.", metrics.bytes_out),
        ("callbacks", "Callbacks run.", metrics.callbacks),
        ("accepted", "Connections accepted.", metrics.accepted),
        ("refused", "Connections refused or shed.", metrics.refused),
        ("handshakes", "Handshakes of TLS that are complete.", metrics.handshakes),
        ("failed_handshakes", "Handshakes of TLS without success.", metrics.failed_handshakes),
        ("accept_errors", "Failed accepts.", metrics.accept_errors),
        ("timers", "Timers fired.", metrics.timers),
        ("late_timers", "Timers fired more than 10 ms late.", metrics.late_timers),
        ("wakeups", "Wake-ups by other threads.", metrics.wakeups),
        ("panics", "Callbacks, factories and drops that panicked.", metrics.panics),
        ("slow_turns", "Turns above the limit.", metrics.slow_turns),
    ];
    let gauges = [
        ("open_connections", "Connections open now.", metrics.open),
        ("handshaking_connections", "Handshakes of TLS that go on now.", metrics.handshaking),
        ("lingering_connections", "Connections that wait for a FIN now.", metrics.lingering),
        ("paused_connections", "Connections paused now.", metrics.paused),
        ("held_connections", "Connections held by flow control now.", metrics.held),
        ("buffered_bytes", "Unsent bytes queued now.", metrics.buffered),
    ];
    // Writing to a String cannot fail.
    for (name, help, value) in counters {
        let name = format!("lariat_{name}_total");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
    }
    for (name, help, value) in gauges {
        let name = format!("lariat_{name}");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    let name = "lariat_closes_total";
    let _ = writeln!(text, "# HELP {name} Connections ended.\n# TYPE {name} counter");
    let closes = &metrics.closes;
    let kinds = [
        ("finished", closes.finished),
        ("reset", closes.reset),
        ("aborted", closes.aborted),
        ("timed_out", closes.timed_out),
        ("input_full", closes.input_full),
        ("output_full", closes.output_full),
        ("connect", closes.connect),
        ("filter", closes.filter),
        ("protocol", closes.protocol),
        ("refused", closes.refused),
        ("panicked", closes.panicked),
        ("shutdown", closes.shutdown),
        ("unsupported", closes.unsupported),
        ("system_error", closes.system_error),
        ("detached", closes.detached),
    ];
    for (kind, value) in kinds {
        let _ = writeln!(text, "{name}{{kind=\"{kind}\"}} {value}");
    }
    let seconds = metrics.age.as_secs_f64();
    let name = "lariat_age_seconds";
    let _ = writeln!(text, "# HELP {name} Time since the start.\n# TYPE {name} gauge");
    let _ = writeln!(text, "{name} {seconds:.3}");
    text
}

fn main() -> ExitCode {
    common::main(&PROGRAM, serve)
}

fn serve(options: &Options) -> common::Result {
    let mut how = ListenOptions::default();
    how.limits.idle = options.idle_timeout;
    let tells = options.verbose;
    let make = move |_: &_| Some(Http::new(Hello { route: Route::AtOnce, tells }));
    common::serve(options, |driver, addr, shares| {
        let mut how = how.clone();
        how.reuse_port = shares;
        common::listen(driver, addr, &how, options, make)
    })
}
