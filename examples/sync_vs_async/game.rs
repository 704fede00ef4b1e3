//! The protocol that all servers speak: an adding game.
//!
//! A client sends numbers, one per line; the answer to each is the sum so far. The sum is the state
//! of the connection, and the question of this example is where it lives: in a field of the value
//! below on all three drivers, in a local variable of `python/threads.py` and `python/tasks.py`.
//!
//! ```text
//! > 17                     < 17
//! > 4 wait 50000           < 21         50 ms later
//! > 1 work 300 ....        < 22 ....    after 0.3 ms of computing; the dots come back
//! ```

use std::thread;
use std::time::{Duration, Instant};

use lariat::{Context, Input, JobError, Note, Outcome, Protocol, Timer};

/// One connection.
pub(crate) struct Adding {
    /// The state of the game.
    sum: i64,
    waiting: Waiting,
    /// The padding of an answer that is not due yet.
    later: Option<Box<[u8]>>,
}

/// How a server waits where a request says so.
#[derive(Clone, Copy)]
pub(crate) enum Waiting {
    /// In the callback, as blocking code does. On the reactor this holds all connections.
    Sleep,
    /// With a timer: the callback returns, and `timeout` answers.
    Timer,
    /// With [`Context::offload`]: on a thread of the library's, whose result comes as a note.
    Offload,
}

/// A line that is longer breaks the rules of the game.
const LINE_MAX: usize = 64 * 1024;
/// No request may wait or work longer.
const MICROS_MAX: u64 = 1_000_000;
const LATER: Timer = Timer::new(1);

impl Adding {
    pub(crate) fn new(waiting: Waiting) -> Adding {
        Adding { sum: 0, waiting, later: None }
    }

    /// One line of the game, without its end.
    fn play(&mut self, cx: &mut Context<'_>, line: &[u8]) -> Outcome {
        let mut words = std::str::from_utf8(line)?.splitn(4, ' ');
        let number: i64 = words.next().unwrap_or_default().parse()?;
        self.sum = self.sum.wrapping_add(number);
        let verb = words.next();
        let time = match verb {
            Some("wait" | "work") => micros(words.next())?,
            _ => Duration::ZERO,
        };
        let padding = match verb {
            Some("wait" | "work") | None => words.next(),
            dots => dots,
        };
        let padding = padding.unwrap_or_default();
        match verb {
            Some("wait") => return self.wait(cx, time, padding),
            Some("work") => work(time),
            _ => {}
        }
        self.answer(cx, padding)
    }

    fn wait(&mut self, cx: &mut Context<'_>, time: Duration, padding: &str) -> Outcome {
        match self.waiting {
            Waiting::Sleep => {
                thread::sleep(time);
                return self.answer(cx, padding);
            }
            Waiting::Timer => cx.set_timer(LATER, time),
            Waiting::Offload => cx.offload(move || thread::sleep(time)),
        }
        // Answers stay in order: what else the client sends waits until this one has left.
        cx.pause_reading();
        self.later = Some(padding.as_bytes().into());
        Ok(())
    }

    fn answer(&mut self, cx: &mut Context<'_>, padding: &str) -> Outcome {
        let space = if padding.is_empty() { "" } else { " " };
        writeln!(cx, "{}{space}{padding}", self.sum)?;
        Ok(())
    }

    fn answer_later(&mut self, cx: &mut Context<'_>) -> Outcome {
        if let Some(padding) = self.later.take() {
            self.answer(cx, std::str::from_utf8(&padding)?)?;
            cx.resume_reading();
        }
        Ok(())
    }
}

impl Protocol for Adding {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        while let Some(end) = input.iter().position(|&byte| byte == b'\n') {
            self.play(cx, &input[..end])?;
            input.consume(end + 1);
            // A client that does not read is owed no more: the rest is shown again after `drained`.
            if cx.is_paused() || cx.is_congested() {
                return Ok(());
            }
        }
        if input.len() > LINE_MAX {
            return Err("a line of more than 64 KiB".into());
        }
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        self.answer_later(cx)
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        waited(note)?;
        self.answer_later(cx)
    }
}

/// The result of a job that only waits.
pub(crate) fn waited(note: Note) -> Outcome {
    match note.downcast::<Result<(), JobError>>() {
        Ok(result) => Ok(result?),
        Err(_) => Err("a note of nobody's".into()),
    }
}

fn micros(word: Option<&str>) -> Result<Duration, Box<dyn std::error::Error + Send + Sync>> {
    let micros: u64 = word.ok_or("how long?")?.parse()?;
    Ok(Duration::from_micros(micros.min(MICROS_MAX)))
}

/// Computes for so long.
pub(crate) fn work(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lariat::sim::{Probe, Sim, every_split};

    #[test]
    fn the_answer_is_the_sum_so_far_and_the_dots_come_back() {
        let mut probe = Probe::new(Adding::new(Waiting::Sleep));
        probe.receive(b"17\n4 ...\n-1 work 1\n2 work 1 ....\n1 wait 1 .\n");
        assert_eq!(probe.sent(), b"17\n21 ...\n20\n22 ....\n23 .\n");
    }

    #[test]
    fn answers_do_not_depend_on_how_lines_are_cut() {
        every_split(|| Adding::new(Waiting::Timer), b"1\n2 ..\n3 wait 5000\n4 work 1 .\n");
    }

    #[test]
    fn with_off_loading_answers_stay_in_order_and_wait_for_the_job() {
        let mut sim = Sim::new(1);
        let factory = |_: &_| Some(Adding::new(Waiting::Offload));
        let listener = sim.listen("127.0.0.1:7000", factory).unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        client.send(b"1\n2 wait 1 ..\n3\n");
        sim.run_for(Duration::from_secs(1)).unwrap();
        assert_eq!(client.take_received(), b"1\n3 ..\n6\n");
        assert_eq!((sim.metrics().jobs, sim.metrics().failed_jobs), (1, 0));
    }

    #[test]
    fn a_job_that_failed_ends_the_game_and_so_does_a_note_of_another_kind() {
        assert!(waited(Note::new(Ok::<(), JobError>(()))).is_ok());
        assert!(waited(Note::new(Err::<(), JobError>(JobError::Full))).is_err());
        assert!(waited(Note::new(())).is_err());
    }

    #[test]
    fn with_a_timer_one_client_waits_and_the_other_is_served() {
        let mut sim = Sim::new(1);
        let factory = |_: &_| Some(Adding::new(Waiting::Timer));
        let listener = sim.listen("127.0.0.1:7000", factory).unwrap();
        let clients = [(); 2].map(|()| sim.dial(sim.addresses(listener)[0]));
        clients[0].send(b"1 wait 50000\n2\n");
        clients[1].send(b"3\n");
        sim.run_for(Duration::from_millis(40)).unwrap();
        assert_eq!(clients[0].take_received(), b"");
        assert_eq!(clients[1].take_received(), b"3\n");
        sim.run_for(Duration::from_millis(20)).unwrap();
        assert_eq!(clients[0].take_received(), b"1\n3\n");
    }

    #[test]
    fn a_client_that_never_reads_is_owed_no_more_than_the_high_mark_and_a_line() {
        let mut sim = Sim::new(1);
        let factory = |_: &_| Some(Adding::new(Waiting::Sleep));
        let listener = sim.listen("127.0.0.1:7000", factory).unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        client.stop_reading();
        client.send(&b"1 ..............................\n".repeat(20_000));
        sim.run_for(Duration::from_secs(1)).unwrap();
        let waiting = sim.metrics().buffered;
        assert!((65_536..65_536 + 64).contains(&waiting), "{waiting} bytes wait");
    }

    #[test]
    fn what_is_no_number_ends_the_game() {
        for line in ["x\n", "\n", "1 wait\n", "1 wait x\n"] {
            let mut probe = Probe::new(Adding::new(Waiting::Sleep));
            probe.receive(line.as_bytes());
            let reason = probe.closed().expect(line);
            assert_eq!(reason.kind(), lariat::CloseKind::Protocol, "{line:?}");
        }
    }
}
