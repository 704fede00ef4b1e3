//! An echo server on tokio's current-thread runtime, written the way its documentation suggests: a
//! task per connection, each with a buffer of 16 KiB of its own. The runtime's timers are left off:
//! with them every turn would read the clock.
//!
//! `tokio_ct PORT` listens on 127.0.0.1:PORT.
#![forbid(unsafe_code)]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().next_back().unwrap_or_default().parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let listener = socket.listen(4096)?;
        let released = Arc::new(Notify::new());
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(echo(stream, released.clone()))),
                // Out of descriptors, most likely. To try again at once would spin.
                Err(_) => released.notified().await,
            }
        }
    })
}

async fn echo(mut stream: TcpStream, released: Arc<Notify>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n) = stream.read(&mut buffer).await {
        if n == 0 || stream.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    drop(stream);
    released.notify_one();
}
