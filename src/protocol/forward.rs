//! Protocols that wrap another and pass on the callbacks that they do not handle.
//!
//! A wrapper that forgets a callback with a default would hide it from the wrapped protocol. So
//! each wrapper lists every callback, either as passed on or as its own, and does not compile
//! otherwise.

macro_rules! callbacks {
    ($($name:ident)*) => {
        /// Every function of [`Protocol`](crate::Protocol), for [`forward_protocol`] to check the
        /// lists of a wrapper against.
        #[doc(hidden)]
        #[allow(missing_debug_implementations)]
        pub struct Callbacks {
            $(pub $name: (),)*
        }

        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

callbacks! { opened data eof drained timeout notified closed stopping name filter }

/// Writes the functions after `pass` inside an `impl Protocol`: each calls the same function of the
/// wrapped protocol. The functions after `own` are written by hand.
///
/// For lariat and its tests: no part of the public API.
#[doc(hidden)]
#[macro_export]
macro_rules! forward_protocol {
    ($self:ident => $inner:expr; pass: $($pass:ident)*; own: $($own:ident)*;) => {
        $crate::forward_protocol! { @each $self, $inner, [$($pass)* $($own)*], $($pass)* }
    };
    (@each $self:ident, $inner:expr, $named:tt, $($pass:ident)*) => {
        $($crate::forward_protocol! { @$pass $self, $inner, $named })*
    };
    (@opened $self:ident, $inner:expr, $named:tt) => {
        $crate::forward_protocol! { @fn $self, $inner, $named, opened() }
    };
    (@data $self:ident, $inner:expr, $named:tt) => {
        $crate::forward_protocol! { @fn $self, $inner, $named, data(input: &mut $crate::Input<'_>) }
    };
    (@eof $self:ident, $inner:expr, $named:tt) => {
        $crate::forward_protocol! { @fn $self, $inner, $named, eof(rest: &mut $crate::Input<'_>) }
    };
    (@drained $self:ident, $inner:expr, $named:tt) => {
        $crate::forward_protocol! { @fn $self, $inner, $named, drained() }
    };
    (@timeout $self:ident, $inner:expr, $named:tt) => {
        $crate::forward_protocol! { @fn $self, $inner, $named, timeout(timer: $crate::Timer) }
    };
    (@notified $self:ident, $inner:expr, $named:tt) => {
        $crate::forward_protocol! { @fn $self, $inner, $named, notified(note: $crate::Note) }
    };
    (@stopping $self:ident, $inner:expr, $named:tt) => {
        $crate::forward_protocol! { @fn $self, $inner, $named, stopping() }
    };
    (@closed $self:ident, $inner:expr, $named:tt) => {
        fn closed(&mut $self, cx: &mut $crate::Context<'_>, reason: &$crate::CloseReason) {
            $crate::forward_protocol! { @check $named }
            $inner.closed(cx, reason);
        }
    };
    (@name $self:ident, $inner:expr, $named:tt) => {
        fn name(&$self) -> &str {
            $crate::forward_protocol! { @check $named }
            $inner.name()
        }
    };
    (@filter $self:ident, $inner:expr, $named:tt) => {
        fn filter(&mut $self) -> ::std::option::Option<::std::boxed::Box<dyn $crate::Filter>> {
            $crate::forward_protocol! { @check $named }
            $inner.filter()
        }
    };
    (@fn $self:ident, $inner:expr, $named:tt, $name:ident($($arg:ident: $kind:ty)?)) => {
        fn $name(
            &mut $self,
            cx: &mut $crate::Context<'_>,
            $($arg: $kind,)?
        ) -> $crate::Outcome {
            $crate::forward_protocol! { @check $named }
            $inner.$name(cx $(, $arg)?)
        }
    };
    (@check [$($name:ident)*]) => {
        // A callback that is missing, or listed twice, does not compile.
        let _ = $crate::Callbacks { $($name: (),)* };
    };
}

#[cfg(test)]
mod tests {
    use super::NAMES;

    #[test]
    fn the_list_of_callbacks_is_that_of_the_trait() {
        let source = include_str!("mod.rs");
        let (_, after) = source.split_once("\npub trait Protocol {\n").unwrap();
        let (body, _) = after.split_once("\n}\n").unwrap();
        let declared: Vec<&str> = body
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("fn "))
            .filter_map(|rest| rest.split('(').next())
            .collect();
        assert_eq!(declared, NAMES);
    }
}
