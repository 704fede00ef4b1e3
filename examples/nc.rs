//! Standard input and output as a connection, relayed to one of the network.
//!
//! ```text
//! $ cargo run --release --example nc -- -l 127.0.0.1:7000 | cat > received
//! $ cat file | cargo run --release --example nc -- 127.0.0.1:7000     # in a second terminal
//! ```
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use lariat::{
    CloseKind, CloseReason, ConnId, Context, Descriptors, Driver, Input, Limits, Outcome, Protocol,
};

const HELP: &str = "usage: nc [-l] [--blocking] ADDR
ADDR is HOST:PORT or unix:PATH; -l waits there for one client, instead of connecting.
--blocking runs it on threads. Standard input and output have to be pipes or a terminal,
because a regular file is always ready: cat FILE | nc ADDR | cat > ANSWER";

static FAILED: AtomicBool = AtomicBool::new(false);

/// One end. What it receives goes to the other end.
#[derive(Default)]
struct End {
    other: Option<ConnId>,
    /// That of the network takes the standard input and output when it opens.
    stdio: Option<Arc<Mutex<Option<Descriptors>>>>,
}

impl Protocol for End {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if let Some(stdio) = self.stdio.as_ref().and_then(|stdio| stdio.lock().ok()?.take()) {
            let other = End { other: Some(cx.id()), stdio: None };
            self.other = Some(cx.driver().adopt_descriptors(stdio, Limits::default(), other)?);
        }
        if let Some(listener) = cx.listener() {
            cx.driver().stop_listening(listener);
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.peer(self.other.ok_or("another client is served")?).write(input);
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        let other = self.other.ok_or("another client is served")?;
        match self.stdio {
            // The answer is whole. When it is written, that is the end.
            Some(_) => cx.peer(other).close(),
            None => cx.peer(other).shutdown_write(),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let in_order = matches!(reason.kind(), CloseKind::Finished | CloseKind::Shutdown);
        if !in_order && reason.kind() != CloseKind::Aborted {
            let error = reason.error().map_or_else(|| reason.to_string(), ToString::to_string);
            eprintln!("nc: {error}");
            FAILED.store(true, Ordering::Relaxed);
        }
        match self.other {
            Some(other) if in_order => cx.peer(other).close(),
            Some(other) => cx.peer(other).abort(),
            None => {}
        }
    }
}

fn main() -> lariat::Result<()> {
    let (flags, addrs): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|a| a.starts_with('-'));
    let has = |flag: &str| flags.iter().any(|given| given == flag);
    if has("-h") || has("--help") {
        println!("{HELP}");
        return Ok(());
    }
    let ([addr], false) =
        (&addrs[..], flags.iter().any(|f| !["-l", "--blocking"].contains(&&f[..])))
    else {
        eprintln!("{HELP}");
        exit(2);
    };
    let mut driver: Box<dyn Driver> = match has("--blocking") {
        true => Box::new(lariat::blocking::Blocking::new()),
        false => Box::new(lariat::reactor::Reactor::new()?),
    };
    // A signal gives a terminal its flags back.
    driver.stop_on_signals()?;
    let stdio = Descriptors::stdio().expect("standard input and output");
    let stdio = Some(Arc::new(Mutex::new(Some(stdio))));
    if has("-l") {
        let make = move |_: &_| Some(End { other: None, stdio: stdio.clone() });
        let listener = driver.control().listen(addr, make)?;
        eprintln!("listening on {}", driver.addresses(listener)[0]);
    } else {
        driver.control().connect(addr, End { other: None, stdio });
    }
    driver.run()?;
    exit(i32::from(FAILED.load(Ordering::Relaxed)));
}
