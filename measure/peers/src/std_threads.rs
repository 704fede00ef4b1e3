//! An echo server on plain threads of the standard library: the floor for the blocking driver.
//!
//! Each connection has a thread with a buffer of 64 KiB, as lariat's has, and nothing but `read`
//! and `write_all` on it: no limits, no deadlines, no counters, and no way to stop it but a signal.
//! Its stack is that of the standard library, as lariat's is.
//!
//! The bench `echo` and the peer `std_threads` of `measure/` are both this file.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Buffers for the next connections, at most.
const POOLED_MAX: usize = 64;

static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Serves for ever. With `pools`, buffers of connections that have ended are kept for the next
/// ones, as lariat does.
pub(crate) fn serve(listener: &TcpListener, pools: bool) -> Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                thread::Builder::new().spawn(move || serve_one(stream, pools))?;
            }
            // Out of descriptors, most likely. To try again at once would spin.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn serve_one(stream: TcpStream, pools: bool) {
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
