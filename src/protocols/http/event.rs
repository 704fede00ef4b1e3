//! Server-sent events, as the HTML standard defines them.

use std::fmt;
use std::time::Duration;

use super::{Header, Response, Status};
use crate::protocol::Context;

const STREAM: Header<'static> = Header::literal("content-type", "text/event-stream");
const FRESH: Header<'static> = Header::literal("cache-control", "no-store");

/// One event of a stream.
///
/// ```
/// use lariat::http::{Event, Response};
/// use lariat::{Context, Outcome};
///
/// fn tick(cx: &mut Context<'_>, response: &mut Response, count: u64) -> Outcome {
///     let data = count.to_string();
///     response.event(cx, Event::new(&data).named("tick")?);
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Event<'a> {
    data: &'a str,
    name: Option<&'a str>,
    id: Option<&'a str>,
    retry: Option<Duration>,
}

impl<'a> Event<'a> {
    /// An event with this data, which may have any number of lines.
    pub fn new(data: &'a str) -> Event<'a> {
        Event { data, ..Event::default() }
    }

    /// Gives it a name; without one it is a `message`.
    ///
    /// # Errors
    ///
    /// The name has a line break or a NUL.
    pub fn named(self, name: &'a str) -> Result<Event<'a>, InvalidEvent> {
        Ok(Event { name: Some(one_line(name)?), ..self })
    }

    /// Gives it an id, which a client that reconnects sends as `last-event-id`.
    ///
    /// # Errors
    ///
    /// The id has a line break or a NUL.
    pub fn with_id(self, id: &'a str) -> Result<Event<'a>, InvalidEvent> {
        Ok(Event { id: Some(one_line(id)?), ..self })
    }

    /// How long the client is to wait before it reconnects, in whole milliseconds.
    pub fn with_retry(self, retry: Duration) -> Event<'a> {
        Event { retry: Some(retry), ..self }
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(self.data.len() + 64);
        let mut field = |name: &str, value: &str| {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push('\n');
        };
        if let Some(name) = self.name {
            field("event", name);
        }
        if let Some(id) = self.id {
            field("id", id);
        }
        if let Some(retry) = self.retry {
            field("retry", &retry.as_millis().to_string());
        }
        // A CR, alone or before LF, ends a line as LF does.
        let data = self.data.replace("\r\n", "\n");
        data.split(['\n', '\r']).for_each(|line| field("data", line));
        text.push('\n');
        text
    }
}

fn one_line(text: &str) -> Result<&str, InvalidEvent> {
    if text.contains(['\r', '\n', '\0']) { Err(InvalidEvent) } else { Ok(text) }
}

/// The name or id of an [`Event`] has a line break or a NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEvent;

impl fmt::Display for InvalidEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name or id of an event has a line break or a NUL")
    }
}

impl std::error::Error for InvalidEvent {}

impl Response {
    /// Begins a stream of server-sent events: 200, `text/event-stream`, not to be cached. Events
    /// follow by [`event`](Response::event). A client that has gone is noticed when something is
    /// sent to it, so a stream with long silences should send a [comment](Response::event_comment)
    /// now and then.
    pub fn start_events(&mut self, cx: &mut Context<'_>) {
        self.start(cx, Status::OK, &[STREAM, FRESH]);
    }

    /// Sends an event, as one chunk.
    pub fn event(&mut self, cx: &mut Context<'_>, event: Event<'_>) {
        self.write(cx, event.text());
    }

    /// Sends a comment, which clients ignore: it shows whether a client is still connected.
    pub fn event_comment(&mut self, cx: &mut Context<'_>) {
        self.write(cx, b":\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_the_data_is_a_field_of_its_own() {
        assert_eq!(Event::new("one").text(), "data: one\n\n");
        assert_eq!(Event::new("a\nb\r\nc\rd").text(), "data: a\ndata: b\ndata: c\ndata: d\n\n");
        let event = Event::new("").named("tick").unwrap().with_id("7").unwrap();
        let event = event.with_retry(Duration::from_secs(2));
        assert_eq!(event.text(), "event: tick\nid: 7\nretry: 2000\ndata: \n\n");
    }

    #[test]
    fn h13_a_name_cannot_smuggle_a_field() {
        assert_eq!(Event::new("").named("a\ndata: b").unwrap_err(), InvalidEvent);
        assert_eq!(Event::new("").with_id("a\0").unwrap_err(), InvalidEvent);
    }
}
