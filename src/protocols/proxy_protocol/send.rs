//! Sending a header before anything else.

use super::{Header, Version};
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::CloseReason;

/// A client's protocol that sends a PROXY header and then lets another protocol take over, which
/// may be under TLS.
///
/// What is written to the connection by its id before it opens would come before the header.
///
/// ```
/// use lariat::proxy_protocol::{Header, SendProxy, Version};
/// # use lariat::{Context, Input, Outcome, Protocol, sim::Probe};
/// # struct Hello;
/// # impl Protocol for Hello {
/// #     fn opened(&mut self, cx: &mut Context<'_>) -> Outcome { cx.write(b"hello"); Ok(()) }
/// #     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
/// # }
///
/// // A check of health is the balancer's own.
/// let mut probe = Probe::new(SendProxy::new(&Header::local(), Version::V1, Hello));
/// assert_eq!(probe.sent(), b"PROXY UNKNOWN\r\nhello");
/// ```
#[derive(Debug)]
pub struct SendProxy<P> {
    header: Vec<u8>,
    inner: Option<P>,
}

impl<P: Protocol + Send + 'static> SendProxy<P> {
    /// Sends `header` in this version before `inner` takes over.
    pub fn new(header: &Header, version: Version, inner: P) -> SendProxy<P> {
        SendProxy { header: header.encode(version), inner: Some(inner) }
    }
}

impl<P: Protocol + Send + 'static> Protocol for SendProxy<P> {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(&self.header);
        if let Some(inner) = self.inner.take() {
            cx.replace(inner).feed_unread();
        }
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        // It has not opened, so that the inner protocol hears of the end as it would alone.
        if let Some(inner) = &mut self.inner {
            inner.closed(cx, reason);
        }
    }

    fn name(&self) -> &str {
        "the sender of a PROXY header"
    }
}
