//! HTTPS: TLS and HTTP compose by their types alone, on both sides.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use lariat::http::{ClientRequest, Handler, Header, Http, Request, Response, Status};
use lariat::proxy_protocol::{self, AcceptProxy, SendProxy, Version};
use lariat::tls::{ClientConfig, ServerConfig, Tls, TlsSession};
use lariat::{Context, Incoming, Outcome};

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
