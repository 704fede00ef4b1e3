//! Who is at the other end of a Unix stream.

/// The process at the other end of a Unix stream, as the system tells it: that which connected, or
/// that which listened, with the ids it had at that time. A process cannot choose them, so that a
/// server can trust them. Feature `peer-credentials`.
///
/// A server that serves its own user only:
///
/// ```
/// use lariat::{Context, Incoming, Input, Outcome, Protocol, sim::Sim};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
/// #         cx.write(input);
/// #         input.consume(input.len());
/// #         Ok(())
/// #     }
/// # }
///
/// fn only(uid: u32) -> impl Fn(&Incoming) -> Option<Echo> {
///     move |incoming| (incoming.peer_credentials()?.uid() == uid).then_some(Echo)
/// }
///
/// let mut sim = Sim::new(1);
/// sim.listen("unix:/run/echo.sock", only(1000))?;
/// # Ok::<(), lariat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerCredentials {
    pid: u32,
    uid: u32,
    gid: u32,
}

impl PeerCredentials {
    /// Credentials for the simulator to announce: see
    /// [`Sim::set_credentials`](crate::sim::Sim::set_credentials).
    pub fn new(pid: u32, uid: u32, gid: u32) -> PeerCredentials {
        PeerCredentials { pid, uid, gid }
    }

    /// The number of the process. It may have ended since, and another have its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The effective user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The effective group.
    pub fn gid(&self) -> u32 {
        self.gid
    }
}
