//! Coming from tokio, mio, asyncio or Twisted: their words, and lariat's for the same thing.
//!
//! One rule differs from most of them: a callback *asks*, and the driver acts when the callback has
//! returned. So a write does not block, returns nothing, and runs no other callback.
//!
//! # From tokio
//!
//! A task that awaits becomes a value with fields: what the task kept in local variables across an
//! `.await` is a field, and each thing that it awaited is a callback.
//!
//! | tokio | lariat |
//! | --- | --- |
//! | the current-thread runtime | [`Reactor`] |
//! | a task per connection | a [`Protocol`] value per connection |
//! | `read(..).await` | [`data`]; unread bytes stay in [`Input`] |
//! | `read_exact` of n bytes | [`Input::need`] |
//! | a codec, `lines()` | [`framing`](crate::framing), or [`consume`] up to the end of each |
//! | `write_all(..).await` | [`Context::write`], which queues |
//! | waiting for room to write | [`is_congested`], [`drained`] |
//! | `shutdown().await` | [`close`], [`shutdown_write`] |
//! | `sleep`, `interval` | [`set_timer`], [`timeout`] |
//! | `timeout(..)` around I/O | [`Limits`]: connect, idle, write stall, close |
//! | `select!` | nothing: the callback of whatever happens runs |
//! | a channel to a task | a [`Note`], by [`Peer::notify`] or [`Handle::notify`] |
//! | `broadcast` | [`Control::push_all`] |
//! | `copy_bidirectional` | [`tunnel`](crate::tunnel), or two connections that write to [`peer`] |
//! | `spawn_blocking` | [`offload`](crate::Context::offload), whose result is a [`Note`] |
//! | a semaphore on accepts | [`DriverLimits::connections_max`], [`connections_per_address`] |
//! | a cancellation token | [`Handle::shutdown`], [`stopping`] |
//! | `time::pause`, `io::duplex` | [`Sim`], [`Probe`] |
//!
//! `let length = stream.read_u16().await?; stream.read_exact(&mut frame).await?` becomes
//!
//! ```
//! use lariat::{Context, Input, Outcome, Protocol};
//!
//! struct Frames;
//!
//! impl Protocol for Frames {
//!     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//!         while let Some(&[high, low]) = input.get(..2) {
//!             let end = 2 + usize::from(u16::from_be_bytes([high, low]));
//!             let Some(frame) = input.get(2..end) else {
//!                 input.need(end);
//!                 break;
//!             };
//!             cx.write(frame);
//!             input.consume(end);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mut probe = lariat::sim::Probe::new(Frames);
//! probe.receive(b"\0\x02hi\0\x03the");
//! assert_eq!(probe.sent(), b"hithe");
//! lariat::sim::every_split(|| Frames, b"\0\x02hi\0\x03the");
//! ```
//!
//! # From mio
//!
//! | mio | lariat |
//! | --- | --- |
//! | `Poll`, `Events` and the loop | [`Reactor::run`] |
//! | a loop of your own | [`turn`], [`next_deadline`], `AsFd` |
//! | `Token` | [`ConnId`]; an old one never names another connection |
//! | `register`, `reregister`, `Interest` | nothing: a connection is registered once, for both |
//! | a readable event, reads until `WouldBlock` | [`data`] |
//! | a writable event, an output buffer | [`Context::write`], which queues |
//! | the timeout of `poll` | [`set_timer`] |
//! | `is_read_closed`, an error event | [`eof`], [`closed`] with a [`CloseReason`] |
//! | `Waker` | [`Handle`] |
//! | a slab of connections | inside the driver |
//! | `EMFILE` in a loop of accepts | [`DriverLimits`], and a reserve descriptor |
//!
//! ```
//! use std::time::Duration;
//! use lariat::reactor::Reactor;
//!
//! let mut reactor = Reactor::new()?;
//! reactor.control().set_timer(Duration::ZERO, |driver| driver.shutdown());
//! while !reactor.is_over() {
//!     reactor.turn(Some(Duration::from_millis(10)))?;
//!     // Other work of the program.
//! }
//! # Ok::<(), lariat::Error>(())
//! ```
//!
//! # From asyncio
//!
//! | asyncio | lariat |
//! | --- | --- |
//! | the event loop | [`Reactor`] |
//! | `Protocol` and `Transport` | [`Protocol`] and [`Context`] |
//! | `connection_made` | [`opened`] |
//! | `data_received`, and a buffer of your own | [`data`], with all unread bytes |
//! | `eof_received` | [`eof`], which closes by default |
//! | `connection_lost` | [`closed`] |
//! | `pause_writing`, `resume_writing` | [`is_congested`], [`drained`] |
//! | `set_write_buffer_limits` | [`Limits::high_mark`], [`low_mark`] |
//! | `transport.write`, `close`, `abort` | [`write`], [`close`], [`abort`] |
//! | `transport.pause_reading` | [`pause_reading`] |
//! | `get_extra_info` | [`peer_addr`], [`local_addr`], [`session`] |
//! | `create_server` | [`listen`] |
//! | `create_connection` | [`connect`] |
//! | `call_later` | [`set_timer`], or [`after`] beyond the connection |
//! | `call_soon_threadsafe` | [`Handle::call`] |
//! | `run_in_executor` | [`offload`](crate::Context::offload), whose result is a [`Note`] |
//!
//! ```
//! use std::time::Duration;
//! use lariat::{Context, Input, Outcome, Protocol, Timer};
//!
//! const TICK: Timer = Timer::new(1);
//!
//! /// `loop.call_later(1, self.tick)`, again and again.
//! struct Ticks;
//!
//! impl Protocol for Ticks {
//!     fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
//!         cx.set_timer(TICK, Duration::from_secs(1));
//!         Ok(())
//!     }
//!     fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//!         input.consume_all();
//!         Ok(())
//!     }
//!     fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
//!         cx.write(b"tick\n");
//!         cx.set_timer(TICK, Duration::from_secs(1));
//!         Ok(())
//!     }
//! }
//!
//! let mut probe = lariat::sim::Probe::new(Ticks);
//! probe.advance(Duration::from_millis(2_500));
//! assert_eq!(probe.sent(), b"tick\ntick\n");
//! ```
//!
//! # From Twisted
//!
//! | Twisted | lariat |
//! | --- | --- |
//! | `reactor` | [`Reactor`] |
//! | `Factory.buildProtocol` | the factory of [`listen`]; None refuses |
//! | `self.factory`, for shared state | an `Rc` or `Arc` that the factory clones |
//! | `connectionMade`, `connectionLost` | [`opened`], [`closed`] |
//! | `dataReceived` | [`data`] |
//! | `transport.write`, `loseConnection`, `abortConnection` | [`write`], [`close`], [`abort`] |
//! | `LineReceiver` | [`Lines`](crate::framing::Lines), or a loop in [`data`], below |
//! | `Int16StringReceiver` | [`LengthPrefixed`](crate::framing::LengthPrefixed) |
//! | `ReconnectingClientFactory` | [`reconnect`](crate::reconnect) |
//! | `reactor.callLater` | [`set_timer`], [`after`] |
//! | `callFromThread` | [`Handle::call`] |
//! | `deferToThread`, `Deferred` | [`offload`](crate::Context::offload); state in the protocol |
//! | producers and consumers | [`is_congested`], [`drained`] |
//! | `TimeoutMixin` | [`Limits::idle`], [`set_idle`] |
//! | `startTLS` | [`replace`] by a protocol with a [`Filter`] |
//! | `StringTransport`, `task.Clock` | [`Probe`], [`Sim`] |
//!
//! ```
//! use lariat::{Context, Input, Outcome, Protocol};
//!
//! /// `LineReceiver`, with `MAX_LENGTH`.
//! struct Lines;
//!
//! impl Lines {
//!     fn line(&mut self, cx: &mut Context<'_>, line: &[u8]) -> Outcome {
//!         writeln!(cx, "{} bytes", line.len())?;
//!         Ok(())
//!     }
//! }
//!
//! impl Protocol for Lines {
//!     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//!         while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
//!             self.line(cx, &input[..end])?;
//!             input.consume(end + 1);
//!         }
//!         if input.len() > 16 * 1024 {
//!             return Err("the line is too long".into());
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mut probe = lariat::sim::Probe::new(Lines);
//! probe.receive(b"one\nthree\nha");
//! assert_eq!(probe.sent(), b"3 bytes\n5 bytes\n");
//! lariat::sim::every_split(|| Lines, b"one\nthree\nhalf");
//! ```
//!
//! [`CloseReason`]: crate::CloseReason
//! [`ConnId`]: crate::ConnId
//! [`Context::write`]: crate::Context::write
//! [`Context`]: crate::Context
//! [`Control::push_all`]: crate::Control::push_all
//! [`DriverLimits::connections_max`]: crate::DriverLimits::connections_max
//! [`connections_per_address`]: crate::DriverLimits::connections_per_address
//! [`DriverLimits`]: crate::DriverLimits
//! [`Filter`]: crate::Filter
//! [`Handle::call`]: crate::Handle::call
//! [`Handle::notify`]: crate::Handle::notify
//! [`Handle::shutdown`]: crate::Handle::shutdown
//! [`Handle`]: crate::Handle
//! [`Input::need`]: crate::Input::need
//! [`Input`]: crate::Input
//! [`Limits::high_mark`]: crate::Limits::high_mark
//! [`Limits::idle`]: crate::Limits::idle
//! [`Limits`]: crate::Limits
//! [`Note`]: crate::Note
//! [`Peer::notify`]: crate::Peer::notify
//! [`Probe`]: crate::sim::Probe
//! [`Protocol`]: crate::Protocol
//! [`Reactor::run`]: crate::reactor::Reactor::run
//! [`Reactor`]: crate::reactor::Reactor
//! [`Sim`]: crate::sim::Sim
//! [`abort`]: crate::Context::abort
//! [`after`]: crate::Context::after
//! [`close`]: crate::Context::close
//! [`closed`]: crate::Protocol::closed
//! [`connect`]: crate::Control::connect
//! [`consume`]: crate::Input::consume
//! [`data`]: crate::Protocol::data
//! [`drained`]: crate::Protocol::drained
//! [`eof`]: crate::Protocol::eof
//! [`is_congested`]: crate::Context::is_congested
//! [`listen`]: crate::Control::listen
//! [`local_addr`]: crate::Context::local_addr
//! [`low_mark`]: crate::Limits::low_mark
//! [`next_deadline`]: crate::reactor::Reactor::next_deadline
//! [`opened`]: crate::Protocol::opened
//! [`pause_reading`]: crate::Context::pause_reading
//! [`peer_addr`]: crate::Context::peer_addr
//! [`peer`]: crate::Context::peer
//! [`replace`]: crate::Context::replace
//! [`session`]: crate::Context::session
//! [`set_idle`]: crate::Context::set_idle
//! [`set_timer`]: crate::Context::set_timer
//! [`shutdown_write`]: crate::Context::shutdown_write
//! [`stopping`]: crate::Protocol::stopping
//! [`timeout`]: crate::Protocol::timeout
//! [`turn`]: crate::reactor::Reactor::turn
//! [`write`]: crate::Context::write
