//! HTTPS: TLS and HTTP compose by their types alone, on both sides.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use lariat::http::{ClientRequest, Handler, Header, Http, Request, Response, Status};
use lariat::proxy_protocol::{self, AcceptProxy, SendProxy, Version};
use lariat::sniff::{self, Choice, Seen, Sniff};
use lariat::tls::{ClientConfig, ServerConfig, Tls, TlsSession};
use lariat::tunnel::Tunnel;
use lariat::{Context, Endpoint, Incoming, Outcome};

use crate::certs::Authority;
use crate::kit::everywhere;

/// Says which version of TLS the request came over.
struct Hello;

impl Handler for Hello {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        let version = cx.session::<TlsSession>().map(TlsSession::version);
        let from = cx.peer_addr().ip().filter(|ip| !ip.is_loopback());
        let from = from.map(|ip| format!(" from {ip}")).unwrap_or_default();
        let body = format!("{} over {version:?}{from}\n", request.path());
        response.send(cx, Status::OK, &[Header::TEXT], body);
        Ok(())
    }
}

#[test]
fn a_request_over_tls_is_answered_over_tls() {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue("localhost")).alpn(["http/1.1"]);
    let client = ClientConfig::new(&authority.roots()).alpn(["http/1.1"]);
    everywhere(|driver| {
        let server = server.clone();
        let factory = move |_: &_| Some(Tls::server(&server, Http::new(Hello)));
        let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
        let addr = driver.addresses(listener)[0];
        let answer = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&answer);
        let request = ClientRequest::get("localhost", "/secret").unwrap();
        let request = request.then(move |cx, result| {
            let response = result.map(|response| response.body().to_vec());
            *kept.lock().unwrap() = Some(response.map_err(|error| error.to_string()));
            cx.driver().shutdown();
        });
        let request = Tls::client(&client, "localhost", request).unwrap();
        driver.control().connect(addr, request);
        driver.run().unwrap();
        let answer = answer.lock().unwrap().take().unwrap();
        assert_eq!(answer, Ok(b"/secret over Some(Tls13)\n".to_vec()));
    });
}

#[test]
fn a_balancer_announces_a_client_in_clear_and_everything_else_is_tls() {
    let authority = Authority::new();
    let server = ServerConfig::new(authority.issue("localhost"));
    let client = ClientConfig::new(&authority.roots());
    let source = SocketAddr::from(([203, 0, 113, 9], 40_312)).into();
    let header = proxy_protocol::Header::proxied(source, source);
    everywhere(|driver| {
        let server = server.clone();
        let factory = move |_: &Incoming| Some(Tls::server(&server, Http::new(Hello)));
        let factory = AcceptProxy::trusting(|_| true).factory(factory);
        let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
        let addr = driver.addresses(listener)[0];
        let answer = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&answer);
        let request = ClientRequest::get("localhost", "/").unwrap().then(move |cx, result| {
            let body = result.map(|response| response.body().to_vec());
            *kept.lock().unwrap() = Some(body.map_err(|error| error.to_string()));
            cx.driver().shutdown();
        });
        let request = Tls::client(&client, "localhost", request).unwrap();
        driver.control().connect(addr, SendProxy::new(&header, Version::V2, request));
        driver.run().unwrap();
        let answer = answer.lock().unwrap().take().unwrap();
        assert_eq!(answer, Ok(b"/ over Some(Tls13) from 203.0.113.9\n".to_vec()));
    });
}

/// Serves the client that asks for `localhost` itself, relays the one that asks for another name,
/// and takes HTTP in clear as well.
fn route(server: ServerConfig, elsewhere: Endpoint) -> Sniff {
    Sniff::new(move |bytes| match (sniff::tls(bytes), sniff::http(bytes)) {
        (Seen::Yes(hello), _) => {
            assert_eq!(hello.alpn(), [b"http/1.1".to_vec()]);
            match hello.server_name() {
                Some("localhost") => Choice::take(Tls::server(&server, Http::new(Hello))),
                Some("other.example") => Choice::take(Tunnel::to(elsewhere)),
                other => Choice::refuse(format!("a name that is not served: {other:?}")),
            }
        }
        (_, Seen::Yes(())) => Choice::take(Http::new(Hello)),
        (Seen::No, Seen::No) => Choice::refuse("neither TLS nor HTTP"),
        (Seen::More(count), _) | (_, Seen::More(count)) => Choice::More(count),
    })
}

#[test]
fn one_port_takes_http_and_tls_and_passes_other_names_on() {
    let authority = Authority::new();
    let here = ServerConfig::new(authority.issue("localhost")).alpn(["http/1.1"]);
    let there = ServerConfig::new(authority.issue("other.example"));
    let client = ClientConfig::new(&authority.roots()).alpn(["http/1.1"]);
    everywhere(|driver| {
        let there = there.clone();
        let factory = move |_: &Incoming| Some(Tls::server(&there, Http::new(Hello)));
        let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
        let elsewhere = driver.addresses(listener)[0];
        let here = here.clone();
        let factory = move |_: &Incoming| Some(route(here.clone(), elsewhere));
        let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
        let addr = driver.addresses(listener)[0];
        let answers: Arc<Mutex<Vec<(&str, String)>>> = Arc::default();
        let ask = |name: &'static str| {
            let kept = Arc::clone(&answers);
            ClientRequest::get(name, "/").unwrap().then(move |cx, result| {
                let body = String::from_utf8_lossy(result.unwrap().body()).into_owned();
                let mut kept = kept.lock().unwrap();
                kept.push((name, body));
                if kept.len() == 3 {
                    cx.driver().shutdown();
                }
            })
        };
        for name in ["localhost", "other.example"] {
            driver.control().connect(addr, Tls::client(&client, name, ask(name)).unwrap());
        }
        driver.control().connect(addr, ask("in.clear"));
        driver.run().unwrap();
        let mut answers = answers.lock().unwrap().clone();
        answers.sort();
        let tls = || "/ over Some(Tls13)\n".to_owned();
        let clear = || "/ over None\n".to_owned();
        let expected = [("in.clear", clear()), ("localhost", tls()), ("other.example", tls())];
        assert_eq!(answers, expected);
    });
}
