//! STARTTLS in both roles. What has arrived before the handshake may be an attacker's: it is
//! refused, or fed to TLS by choice, and never shown.

use std::io::{Read, Write};

use lariat::framing::{FrameHandler, Framed, Lines};
use lariat::tls::{ClientConfig, ServerConfig, Tls, rustls};
use lariat::{
    By, CloseKind, Context, Driver, FilterFailure, Incoming, Input, ListenerId, Outcome, Protocol,
};

use crate::certs::Authority;
use crate::kit::{End, Told, everywhere};

const ASKS: &[u8] = b"STARTTLS\n";
const AGREES: &[u8] = b"GO\n";
/// What an attacker puts in before the handshake.
const INJECTED: &[u8] = b"QUIT\n";

/// The server's side: answers the question in clear and goes on under TLS.
struct Agreeing {
    config: ServerConfig,
    told: Told,
    feeds: bool,
    /// Bytes that have to be there before it looks.
    waits: usize,
    listener: Option<ListenerId>,
}

impl Protocol for Agreeing {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.len() < self.waits {
            input.need(self.waits);
            return Ok(());
        }
        assert!(input.starts_with(ASKS));
        input.consume(ASKS.len());
        cx.write(AGREES);
        let listener = self.listener.take();
        let end = End { told: self.told.clone(), says: Vec::new(), echoes: true, listener };
        let mut next = cx.replace(Tls::server(&self.config, end));
        if self.feeds {
            next.feed_unread();
        }
        Ok(())
    }
}

/// The client's side: asks in clear, goes on under TLS, and says a word there.
struct Asking {
    config: ClientConfig,
    told: Told,
    feeds: bool,
    waits: usize,
}

impl Protocol for Asking {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(ASKS);
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.len() < self.waits {
            input.need(self.waits);
            return Ok(());
        }
        assert!(input.starts_with(AGREES));
        input.consume(AGREES.len());
        let told = self.told.clone();
        let end = End { told, says: b"secret".to_vec(), echoes: false, listener: None };
        let mut next = cx.replace(Tls::client(&self.config, "localhost", end)?);
        if self.feeds {
            next.feed_unread();
        }
        Ok(())
    }
}

fn serve<P: Protocol + Send + 'static>(
    driver: &mut dyn Driver,
    make: impl Fn(ListenerId) -> P + Send + Sync + 'static,
) -> lariat::Endpoint {
    let factory = move |incoming: &Incoming| Some(make(incoming.listener()));
    let listener = driver.control().listen("127.0.0.1:0", factory).unwrap();
    driver.addresses(listener)[0]
}

#[test]
fn both_ends_go_over_to_tls_when_they_have_agreed() {
    let authority = Authority::new();
    everywhere(|driver| {
        let (served, heard) = (Told::default(), Told::default());
        let (config, told) = (ServerConfig::new(authority.issue("localhost")), served.clone());
        let addr = serve(driver, move |listener| Agreeing {
            config: config.clone(),
            told: told.clone(),
            feeds: false,
            waits: ASKS.len(),
            listener: Some(listener),
        });
        let config = ClientConfig::new(&authority.roots());
        let asking = Asking { config, told: heard.clone(), feeds: false, waits: AGREES.len() };
        driver.control().connect(addr, asking);
        driver.run().unwrap();
        assert_eq!((served.bytes(), heard.bytes()), (b"secret".to_vec(), b"secret".to_vec()));
        for told in [&served, &heard] {
            assert_eq!(told.reason().kind(), CloseKind::Finished, "{}", told.reason());
        }
    });
}

/// A server that an attacker on the way has helped: bytes in clear follow the agreement.
struct Injecting(Option<ListenerId>);

impl Protocol for Injecting {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.starts_with(ASKS) {
            cx.write(AGREES);
            cx.write(INJECTED);
        }
        input.consume_all();
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, _: &lariat::CloseReason) {
        cx.driver().stop_listening(self.0.take().unwrap());
    }
}

#[test]
fn a_client_refuses_what_came_before_its_handshake_or_lets_tls_judge_it() {
    let authority = Authority::new();
    for feeds in [false, true] {
        everywhere(|driver| {
            let heard = Told::default();
            let addr = serve(driver, |listener| Injecting(Some(listener)));
            let config = ClientConfig::new(&authority.roots());
            let waits = AGREES.len() + INJECTED.len();
            driver.control().connect(addr, Asking { config, told: heard.clone(), feeds, waits });
            driver.run().unwrap();
            assert!(!heard.has_opened() && heard.bytes().is_empty(), "it is shown to no protocol");
            let reason = heard.reason();
            let expected = match feeds {
                false => (CloseKind::Filter(FilterFailure::UnreadInput), By::Us),
                true => (CloseKind::Filter(FilterFailure::Failed), By::Peer),
            };
            assert_eq!((reason.kind(), reason.by()), expected, "{reason}");
            if feeds {
                assert_eq!(heard.error(), "the peer does not speak TLS");
            }
        });
    }
}

/// A client that does not wait for the agreement: its hello comes in one piece with the question.
struct Eager {
    session: rustls::ClientConnection,
    told: Told,
    agreed: bool,
}

impl Eager {
    fn new(authority: &Authority, told: &Told) -> Eager {
        let session = authority.session_by_hand("localhost");
        Eager { session, told: told.clone(), agreed: false }
    }

    fn output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut out).unwrap();
        }
        out
    }
}

/// The size of its question, with the hello behind it.
fn eager_question(authority: &Authority) -> usize {
    ASKS.len() + Eager::new(authority, &Told::default()).output().len()
}

impl Protocol for Eager {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let mut question = ASKS.to_vec();
        question.extend_from_slice(&self.output());
        cx.write(&question);
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if !self.agreed {
            if input.len() < AGREES.len() {
                input.need(AGREES.len());
                return Ok(());
            }
            assert!(input.starts_with(AGREES));
            input.consume(AGREES.len());
            self.agreed = true;
            self.session.writer().write_all(b"eager")?;
            return Ok(());
        }
        let mut bytes = &input[..];
        while !bytes.is_empty() {
            self.session.read_tls(&mut bytes)?;
            self.session.process_new_packets()?;
        }
        input.consume_all();
        let mut heard = Vec::new();
        let _ = self.session.reader().read_to_end(&mut heard);
        if !heard.is_empty() {
            self.told.with(|seen| seen.bytes.extend_from_slice(&heard));
            self.session.send_close_notify();
        }
        let out = self.output();
        cx.write(&out);
        Ok(())
    }
}

#[test]
fn a_server_refuses_what_came_before_its_handshake_or_takes_it_for_the_hello() {
    let authority = Authority::new();
    let waits = eager_question(&authority);
    for feeds in [false, true] {
        everywhere(|driver| {
            let (served, heard) = (Told::default(), Told::default());
            let (config, told) = (ServerConfig::new(authority.issue("localhost")), served.clone());
            let addr = serve(driver, move |listener| Agreeing {
                config: config.clone(),
                told: told.clone(),
                feeds,
                waits,
                listener: Some(listener),
            });
            driver.control().connect(addr, Eager::new(&authority, &heard));
            driver.run().unwrap();
            let reason = served.reason();
            if feeds {
                assert_eq!((served.bytes(), heard.bytes()), (b"eager".into(), b"eager".into()));
                assert_eq!(reason.kind(), CloseKind::Finished, "{reason}");
                return;
            }
            assert_eq!(reason.kind(), CloseKind::Filter(FilterFailure::UnreadInput), "{reason}");
            assert_eq!(reason.by(), By::Us);
            assert!(!served.has_opened() && served.bytes().is_empty());
        });
    }
}

/// As a mail server is written: lines, and TLS when one of them asks for it.
struct Mail {
    config: ServerConfig,
    told: Told,
    listener: Option<ListenerId>,
}

impl FrameHandler for Mail {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"220 mail.example\r\n");
        Ok(())
    }

    fn frame(&mut self, cx: &mut Context<'_>, line: &[u8]) -> Outcome {
        match line {
            b"STARTTLS" => {
                cx.write(b"220 go ahead\r\n");
                let (told, listener) = (self.told.clone(), self.listener.take());
                let end = End { told, says: Vec::new(), echoes: true, listener };
                cx.replace(Tls::server(&self.config, end));
            }
            _ => cx.write(b"250 STARTTLS\r\n"),
        }
        Ok(())
    }
}

/// A client of rustls' own that speaks to it, with `behind` in one piece with its question.
struct Sender {
    session: rustls::ClientConnection,
    told: Told,
    behind: &'static [u8],
    lines: Vec<u8>,
}

impl Protocol for Sender {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.lines.extend_from_slice(input);
        let mut bytes = &input.split_all()[..];
        if self.lines == b"220 mail.example\r\n" {
            cx.write(&[b"EHLO x\r\nSTARTTLS\r\n", self.behind].concat());
            return Ok(());
        }
        let agreed = b"220 mail.example\r\n250 STARTTLS\r\n220 go ahead\r\n";
        if self.lines.len() < agreed.len() {
            return Ok(());
        }
        if self.lines == agreed {
            self.session.writer().write_all(b"secret")?;
            bytes = &[];
        }
        while !bytes.is_empty() {
            self.session.read_tls(&mut bytes)?;
            self.session.process_new_packets()?;
        }
        let mut heard = Vec::new();
        let _ = self.session.reader().read_to_end(&mut heard);
        if !heard.is_empty() {
            self.told.with(|seen| seen.bytes.extend_from_slice(&heard));
            self.session.send_close_notify();
        }
        let mut out = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut out)?;
        }
        cx.write(&out);
        Ok(())
    }
}

#[test]
fn a_handler_of_lines_goes_over_to_tls_and_takes_no_line_from_before() {
    let authority = Authority::new();
    for behind in [&b""[..], b"RCPT TO:<evil>\r\n", b"R"] {
        everywhere(|driver| {
            let (served, heard) = (Told::default(), Told::default());
            let (config, told) = (ServerConfig::new(authority.issue("localhost")), served.clone());
            let addr = serve(driver, move |listener| {
                let (config, told) = (config.clone(), told.clone());
                Framed::new(Lines::new(), Mail { config, told, listener: Some(listener) })
            });
            let session = authority.session_by_hand("localhost");
            let told = heard.clone();
            driver.control().connect(addr, Sender { session, told, behind, lines: Vec::new() });
            driver.run().unwrap();
            let reason = served.reason();
            if behind.is_empty() {
                assert_eq!((served.bytes(), heard.bytes()), (b"secret".into(), b"secret".into()));
                assert_eq!(reason.kind(), CloseKind::Finished, "{reason}");
                return;
            }
            assert!(!served.has_opened() && served.bytes().is_empty() && heard.bytes().is_empty());
            let kind = reason.kind();
            // A rough network may bring what is behind later, as the beginning of a handshake.
            let early = CloseKind::Filter(FilterFailure::UnreadInput);
            assert!(kind == early || kind == CloseKind::Filter(FilterFailure::Failed), "{reason}");
        });
    }
}
