//! A load for an echo server under TLS, by tokio-rustls on one thread. Every byte that comes back is
//! compared. It prints one line of JSON: what was done, and the seconds that took.
//!
//! ```text
//! tls_load MODE --addr 127.0.0.1:PORT --ca FILE [--connections N] [--count N] [--size BYTES]
//!
//! handshakes  connections that shake hands in full, echo a byte and close: COUNT in all
//! resumed     the same with tickets, after one full handshake for each of the N that go on at once
//! small       round trips of SIZE bytes on N connections: COUNT in all
//! bulk        SIZE bytes both ways at a time on N connections, COUNT times in all
//! idle        N connections that have echoed a byte, until standard input ends
//! ```

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// More than any single step takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Options {
    mode: String,
    addr: String,
    roots: Arc<RootCertStore>,
    connections: usize,
    count: u64,
    size: usize,
}

fn options() -> Result<Options> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let mut roots = RootCertStore::empty();
    let (mut mode, mut addr) = (String::new(), String::new());
    let (mut connections, mut count, mut size) = (8, 1000, 64);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("addr") => addr = parser.value()?.string()?,
            Long("ca") => {
                for certificate in CertificateDer::pem_file_iter(parser.value()?)? {
                    roots.add(certificate?)?;
                }
            }
            Long("connections") => connections = parser.value()?.parse()?,
            Long("count") => count = parser.value()?.parse()?,
            Long("size") => size = parser.value()?.parse()?,
            Value(word) => mode = word.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Options { mode, addr, roots: Arc::new(roots), connections, count, size })
}

fn config(options: &Options, resumes: bool) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has suites for both versions")
        .with_root_certificates(Arc::clone(&options.roots))
        .with_no_client_auth();
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

async fn connect(addr: &str, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
    Ok(tokio::time::timeout(PATIENCE, connecting).await??)
}

/// Sends `bytes` and waits for them to come back.
async fn echo(stream: &mut TlsStream<TcpStream>, bytes: &[u8], answer: &mut [u8]) -> Result {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    tokio::time::timeout(PATIENCE, stream.read_exact(answer)).await??;
    if bytes == answer { Ok(()) } else { Err("another answer than was sent".into()) }
}

/// One more of what is left to do, if there is any.
fn take(left: &Cell<u64>) -> bool {
    let some = left.get() > 0;
    left.set(left.get().saturating_sub(1));
    some
}

/// Shakes hands again and again; returns how many sessions were resumed.
async fn shake_hands(options: Rc<Options>, left: Rc<Cell<u64>>, resumes: bool) -> Result<u64> {
    let (mut resumed, config) = (0, config(&options, resumes));
    while take(&left) {
        let mut stream = connect(&options.addr, &config).await?;
        // The answer comes behind the tickets.
        echo(&mut stream, b"x", &mut [0]).await?;
        let kind = stream.get_ref().1.handshake_kind();
        resumed += u64::from(kind == Some(HandshakeKind::Resumed));
        stream.shutdown().await?;
    }
    Ok(resumed)
}

async fn small(options: Rc<Options>, left: Rc<Cell<u64>>, began: Rc<Cell<Instant>>) -> Result<u64> {
    let mut stream = connect(&options.addr, &config(&options, false)).await?;
    let mut answer = vec![0; options.size];
    let bytes: Vec<u8> = (0..options.size).map(|at| at as u8).collect();
    echo(&mut stream, &bytes, &mut answer).await?;
    began.set(Instant::now());
    while take(&left) {
        echo(&mut stream, &bytes, &mut answer).await?;
    }
    stream.shutdown().await?;
    Ok(0)
}

async fn bulk(options: Rc<Options>, left: Rc<Cell<u64>>, began: Rc<Cell<Instant>>) -> Result<u64> {
    let mut stream = connect(&options.addr, &config(&options, false)).await?;
    echo(&mut stream, b"x", &mut [0]).await?;
    began.set(Instant::now());
    let bytes: Vec<u8> = (0..options.size).map(|at| (at % 251) as u8).collect();
    let mut answer = vec![0; options.size];
    let (mut reading, mut writing) = split(stream);
    while take(&left) {
        let send = async {
            writing.write_all(&bytes).await?;
            writing.flush().await
        };
        let (sent, received) = tokio::join!(send, reading.read_exact(&mut answer));
        (sent?, received?);
        if bytes != answer {
            return Err("another answer than was sent".into());
        }
    }
    writing.shutdown().await?;
    Ok(0)
}

async fn idle(options: &Rc<Options>) -> Result {
    let config = config(options, false);
    let mut held = Vec::new();
    for _ in 0..options.connections {
        let mut stream = connect(&options.addr, &config).await?;
        echo(&mut stream, b"x", &mut [0]).await?;
        held.push(stream);
    }
    println!("ready");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn run(options: Rc<Options>) -> Result {
    let left = Rc::new(Cell::new(options.count));
    let began = Rc::new(Cell::new(Instant::now()));
    let mut tasks: JoinSet<Result<u64>> = JoinSet::new();
    for _ in 0..options.connections {
        let (options, left, began) = (Rc::clone(&options), Rc::clone(&left), Rc::clone(&began));
        match options.mode.as_str() {
            "handshakes" => tasks.spawn_local(shake_hands(options, left, false)),
            "resumed" => tasks.spawn_local(shake_hands(options, left, true)),
            "small" => tasks.spawn_local(small(options, left, began)),
            "bulk" => tasks.spawn_local(bulk(options, left, began)),
            "idle" => return idle(&options).await,
            other => return Err(format!("there is no mode {other:?}").into()),
        };
    }
    let mut resumed = 0;
    while let Some(done) = tasks.join_next().await {
        resumed += done??;
    }
    let seconds = began.get().elapsed().as_secs_f64();
    let count = options.count;
    println!("{{\"count\":{count},\"resumed\":{resumed},\"seconds\":{seconds:.6}}}");
    Ok(())
}

fn main() -> Result {
    let options = Rc::new(options()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(options))
}
