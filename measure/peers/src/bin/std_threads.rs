//! An echo server on plain threads of the standard library: the floor for the blocking driver.
//!
//! Each connection has a thread with a buffer of 64 KiB, as lariat's has, and nothing but `read`
//! and `write_all` on it: no limits, no deadlines, no counters, and no way to stop it but a signal.
//! Its stack is that of the standard library, as lariat's is.
//!
//! `std_threads PORT` listens on 127.0.0.1:PORT. `std_threads --pool PORT` keeps at most 64 buffers
//! of connections that have ended for the next ones, as lariat does.
#![forbid(unsafe_code)]

use socket2::{Domain, Socket, Type};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Buffers for the next connections, at most.
const POOLED_MAX: usize = 64;

static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().next_back().unwrap_or_default().parse()?;
    let pools = std::env::args().any(|argument| argument == "--pool");
    let listener = listen(port)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                thread::Builder::new().spawn(move || serve(stream, pools))?;
            }
            // Out of descriptors, most likely. To try again at once would spin.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// As the other peers do, with a backlog of 4,096.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn serve(stream: TcpStream, pools: bool) {
    let pool = || POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let pooled = if pools { pool().pop() } else { None };
    let mut buffer = pooled.unwrap_or_else(|| vec![0; 64 * 1024]);
    echo(stream, &mut buffer);
    if pools {
        let mut pool = pool();
        if pool.len() < POOLED_MAX {
            pool.push(buffer);
        }
    }
}

fn echo(mut stream: TcpStream, buffer: &mut [u8]) {
    let _ = stream.set_nodelay(true);
    loop {
        match stream.read(buffer) {
            Ok(0) => return,
            Ok(n) if stream.write_all(&buffer[..n]).is_ok() => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}
