//! What a kept connection knows of the attempts before it, and that it is kept through handovers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::reconnect::{Attempt, Backoff, Reconnect};
use lariat::{CloseKind, ConnectFailure, Context, Limits, Note, Outcome, Timer};

use crate::kit::{Play, everywhere, says, says_all};

/// What a protocol does that hands its connection over in the callback of this name.
fn hands_over(callback: &'static str, next: impl Fn() -> Play + Clone + Send + 'static) -> Play {
    let act = move |cx: &mut Context<'_>| -> Outcome {
        cx.replace(next());
        Ok(())
    };
    let begin = move |cx: &mut Context<'_>| -> Outcome {
        match callback {
            "timeout" => cx.set_timer(Timer::new(1), Duration::ZERO),
            "notified" => {
                let id = cx.id();
                cx.peer(id).notify(Note::new(()));
            }
            // More than the high mark.
            "drained" => cx.write(&[b'a'; 300_000]),
            "stopping" => cx.driver().shutdown(),
            _ => {}
        }
        Ok(())
    };
    let play = Play::new().opened(begin);
    match callback {
        "opened" => play.opened(act),
        "data" => play.data(move |cx, input| {
            input.consume_all();
            act(cx)
        }),
        "eof" => play.eof(move |cx, _| act(cx)),
        "drained" => play.drained(act),
        "timeout" => play.timeout(move |cx, _| act(cx)),
        "notified" => play.notified(move |cx, _| act(cx)),
        "stopping" => play.stopping(act),
        other => panic!("there is no {other}"),
    }
}

#[test]
fn a_connection_is_kept_whichever_callback_hands_it_over() {
    let callbacks = ["opened", "data", "eof", "drained", "timeout", "notified", "stopping"];
    for callback in callbacks {
        everywhere(|stage| {
            let addr = stage.serve("server", move || match callback {
                "eof" => says_all(b""),
                "data" => says(b"hello"),
                _ => Play::new(),
            });
            let (ends, trace) = (Arc::new(Mutex::new(Vec::new())), stage.trace.clone());
            let told = Arc::clone(&ends);
            let closes = || {
                Play::new().opened(|cx| {
                    cx.close();
                    Ok(())
                })
            };
            Reconnect::to(addr)
                .until(|_| true)
                .on_end(move |_, ended| told.lock().unwrap().push(ended.attempt()))
                .start(&mut stage.driver.control(), move |_: &Attempt| {
                    trace.wrap("client", hands_over(callback, closes))
                })
                .unwrap();
            stage.run();
            assert_eq!(*ends.lock().unwrap(), [1], "handed over in {callback}");
        });
    }
}

#[test]
fn each_attempt_knows_how_the_one_before_it_ended() {
    const REFUSED: CloseKind = CloseKind::Connect(ConnectFailure::Refused);
    everywhere(|stage| {
        let nobody = stage.deserted();
        let addr = stage.serve_many(2, Limits::default(), |number| {
            (format!("server {number}"), says(b"hello"))
        });
        let mut backoff = Backoff::default();
        (backoff.first, backoff.cap) = (Duration::from_millis(1), Duration::from_millis(1));
        backoff.failures_max = Some(4);
        let (lasts, keeper) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
        let (seen, kept, trace) = (Arc::clone(&lasts), Arc::clone(&keeper), stage.trace.clone());
        let started = Reconnect::to(nobody)
            .with_backoff(backoff)
            .on_end(move |_, ended| {
                let keeper: Option<lariat::reconnect::Keeper> = kept.lock().unwrap().clone();
                if ended.attempt() == 2 {
                    keeper.unwrap().set_addr(addr);
                }
            })
            .start(&mut stage.driver.control(), move |attempt: &Attempt| {
                let last = attempt.last().map(|reason| reason.kind());
                seen.lock().unwrap().push((attempt.number(), attempt.failures(), last));
                trace.wrap("client", Play::new().data(|_, _| Err("it is enough".into())))
            });
        *keeper.lock().unwrap() = Some(started.unwrap());
        stage.run();
        let expected = [
            (1, 0, None),
            (2, 1, Some(REFUSED)),
            (3, 2, Some(REFUSED)),
            (4, 3, Some(CloseKind::Protocol)),
        ];
        assert_eq!(*lasts.lock().unwrap(), expected);
    });
}
