//! Messages from one part of a program to one connection.

use std::any::Any;
use std::fmt;

/// A value sent to a connection, which [`Protocol::notified`](crate::Protocol::notified) receives.
///
/// ```
/// use lariat::Note;
/// let note = Note::new(42u32);
/// assert!(note.is::<u32>());
/// assert_eq!(note.downcast::<u32>().unwrap(), 42);
/// ```
pub struct Note(Box<dyn Any + Send>);

impl Note {
    /// Wraps a value.
    pub fn new<T: Any + Send>(value: T) -> Note {
        Note(Box::new(value))
    }

    /// Whether the value is a `T`.
    pub fn is<T: Any>(&self) -> bool {
        self.0.is::<T>()
    }

    /// The value, if it is a `T`.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// Takes the value out.
    ///
    /// # Errors
    ///
    /// The note itself, if its value is not a `T`.
    pub fn downcast<T: Any>(self) -> Result<T, Note> {
        self.0.downcast().map(|value| *value).map_err(Note)
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Note(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_another_type_comes_back_whole() {
        let note = Note::new("text").downcast::<u8>().unwrap_err();
        assert_eq!(note.get::<&str>(), Some(&"text"));
        assert!(note.get::<u8>().is_none());
    }
}
