//! The session as a filter.

use std::any::Any;
use std::io::{self, BufRead, Write};

use rustls::{ClientConnection, Connection, ServerConnection};

use super::Side;
use super::error::TlsError;
use super::session::TlsSession;
use super::time::Shown;
use crate::clock::WallClock;
use crate::filter::{Filter, FilterResult, Progress};
use crate::guard::guarded;

pub(super) struct TlsFilter {
    side: Side,
    /// None until the start.
    connection: Option<Connection>,
    /// None until the handshake is over.
    session: Option<TlsSession>,
    /// The peer's close_notify has come.
    peer_finished: bool,
    /// Our close_notify has been made.
    finished: bool,
    /// A virtual clock. That of the system needs no showing.
    clock: Option<Box<WallClock>>,
}

impl TlsFilter {
    pub(super) fn new(side: Side) -> TlsFilter {
        TlsFilter {
            side,
            connection: None,
            session: None,
            peer_finished: false,
            finished: false,
            clock: None,
        }
    }

    fn connection(&mut self) -> io::Result<&mut Connection> {
        self.connection.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Our close_notify is made, so nothing more is written; the peer goes on, as TLS 1.3 allows.
    ///
    /// rustls 0.23 has no state for that: a debug assertion takes the close_notify for an alert
    /// after which there is no other, and fails when a bad record calls for one. The bytes of a
    /// peer must not panic a server, so the panic becomes the failure of the session, which is over
    /// either way.
    fn receive_after_the_end(&mut self, bytes: &[u8], clear: &mut Vec<u8>) -> FilterResult {
        let _shown = self.clock.as_deref().map(Shown::new);
        let connection = self.connection()?;
        let decrypted = guarded(|| {
            let decrypted = decrypt(connection, bytes, clear);
            // Behind a close_notify nothing counts: an answer to a key update goes nowhere.
            flush(connection, &mut Vec::new())?;
            decrypted
        });
        match decrypted {
            Ok(decrypted) => self.peer_finished = decrypted?,
            Err(panic) => {
                self.connection = None;
                let sentence = "the peer has sent a record that is not valid";
                return Err(TlsError::new(sentence, panic).into());
            }
        }
        Ok(self.progress())
    }

    /// How far the session has come.
    fn progress(&mut self) -> Progress {
        if self.session.is_none() {
            self.session = self.connection.as_ref().and_then(TlsSession::of);
        }
        match self.session {
            None => Progress::Handshaking,
            Some(_) if self.peer_finished => Progress::PeerFinished,
            Some(_) => Progress::Open,
        }
    }
}

/// Moves what the session has to say to the wire.
fn flush(connection: &mut Connection, wire: &mut Vec<u8>) -> io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(wire)?;
    }
    Ok(())
}

/// Takes `bytes` from the wire; true when the peer has finished.
fn decrypt(
    connection: &mut Connection,
    mut bytes: &[u8],
    clear: &mut Vec<u8>,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let mut peer_has_closed = false;
    while !bytes.is_empty() {
        if connection.read_tls(&mut bytes)? == 0 {
            // Behind a close_notify nothing counts.
            break;
        }
        let state = connection.process_new_packets().map_err(TlsError::of_session)?;
        peer_has_closed = state.peer_has_closed();
        let mut left = state.plaintext_bytes_to_read();
        let mut reader = connection.reader();
        while left > 0 {
            let part = reader.fill_buf()?;
            let count = part.len();
            clear.extend_from_slice(part);
            reader.consume(count);
            left -= count;
        }
    }
    Ok(peer_has_closed)
}

impl Filter for TlsFilter {
    fn set_clock(&mut self, clock: WallClock) {
        self.clock = clock.is_virtual().then(|| Box::new(clock));
    }

    fn start(&mut self, wire: &mut Vec<u8>) -> FilterResult {
        let _shown = self.clock.as_deref().map(Shown::new);
        let made = match self.side.clone() {
            Side::Server(config) => ServerConnection::new(config).map(Connection::from),
            Side::Client(config, name) => ClientConnection::new(config, name).map(Connection::from),
        };
        let mut connection = made.map_err(TlsError::of_session)?;
        flush(&mut connection, wire)?;
        self.connection = Some(connection);
        Ok(Progress::Handshaking)
    }

    fn receive(
        &mut self,
        bytes: &mut [u8],
        clear: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> FilterResult {
        if self.finished {
            return self.receive_after_the_end(bytes, clear);
        }
        let _shown = self.clock.as_deref().map(Shown::new);
        let connection = self.connection()?;
        let decrypted = decrypt(connection, bytes, clear);
        // After a failure it is the alert that says why.
        flush(connection, wire)?;
        self.peer_finished = decrypted?;
        Ok(self.progress())
    }

    fn send(&mut self, mut clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        let connection = self.connection()?;
        while !clear.is_empty() {
            let taken = connection.writer().write(clear)?;
            clear = &clear[taken..];
            flush(connection, wire)?;
        }
        Ok(self.progress())
    }

    fn finish(&mut self, wire: &mut Vec<u8>) {
        self.finished = true;
        if let Some(connection) = &mut self.connection {
            connection.send_close_notify();
            // A vector takes everything.
            let _ = flush(connection, wire);
        }
    }

    fn session(&self) -> Option<&dyn Any> {
        self.session.as_ref().map(|session| session as &dyn Any)
    }
}
