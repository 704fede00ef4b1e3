//! Wake-ups: what a handle asks for is done because it has woken the loop, and no turn leaves
//! anything behind that nobody would come back to.

use std::cell::RefCell;
use std::rc::Rc;

use lariat::sim::{Faults, Sim, Socket};
use lariat::{CloseReason, ConnId, Context, Handle, Input, Note, Outcome, Protocol};

use crate::kit::{Echo, Sink, ms, serve, sim_with};

/// What has happened, in order.
type Log = Rc<RefCell<Vec<String>>>;

/// Says what it is sent.
struct Listening(Log, Rc<RefCell<Option<ConnId>>>);

impl Protocol for Listening {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        *self.1.borrow_mut() = Some(cx.id());
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn notified(&mut self, _: &mut Context<'_>, _: Note) -> Outcome {
        self.0.borrow_mut().push("notified".into());
        Ok(())
    }
    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.borrow_mut().push("stopping".into());
        cx.close();
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.borrow_mut().push(format!("closed {}", reason.kind()));
    }
}

/// A simulator with one open connection in which nothing can happen any more.
fn idle() -> (Sim, Socket, ConnId, Log) {
    let mut sim = Sim::new(1);
    let (log, id) = (Log::default(), Rc::default());
    let (logs, ids) = (Rc::clone(&log), Rc::clone(&id));
    let addr = serve(&mut sim, move || Listening(Rc::clone(&logs), Rc::clone(&ids)));
    let client = sim.dial(addr);
    sim.run().unwrap();
    assert!(sim.is_quiet() && !sim.is_over());
    let id = id.borrow().expect("it has opened");
    (sim, client, id, log)
}

#[test]
fn whatever_a_handle_asks_of_an_idle_loop_is_done_by_one_wake_up() {
    type Ask = fn(&Handle, ConnId);
    let cases: [(Ask, &[&str], &[u8]); 7] = [
        (|handle, id| handle.write(id, b"hello").unwrap(), &[], b"hello"),
        (|handle, id| handle.write_bytes(id, "pushed").unwrap(), &[], b"pushed"),
        (|handle, id| handle.notify(id, Note::new(1u8)).unwrap(), &["notified"], b""),
        (|handle, id| handle.close(id).unwrap(), &["closed finished"], b""),
        (|handle, id| handle.abort(id), &["closed aborted"], b""),
        (|handle, _| handle.shutdown(), &["stopping", "closed shut down"], b""),
        (
            |handle, id| handle.call(move |control| control.peer(id).write(b"called")).unwrap(),
            &[],
            b"called",
        ),
    ];
    for (ask, expected, heard) in cases {
        let (mut sim, client, id, log) = idle();
        let before = sim.metrics();
        ask(&sim.handle(), id);
        assert!(!sim.is_quiet(), "the loop is woken");
        sim.run().unwrap();
        assert_eq!(*log.borrow(), expected);
        assert_eq!(client.take_received(), heard);
        assert_eq!(sim.metrics().wakeups - before.wakeups, 1, "{expected:?}");
    }
}

#[test]
fn a_wake_up_is_an_event() {
    let (mut sim, _client, id, log) = idle();
    let before = sim.metrics();
    sim.handle().notify(id, Note::new(1u8)).unwrap();
    sim.run().unwrap();
    let after = sim.metrics();
    assert_eq!(*log.borrow(), ["notified"]);
    assert_eq!((after.wakeups - before.wakeups, after.events - before.events), (1, 1));
}

#[test]
fn what_is_asked_for_outside_of_callbacks_needs_no_wake_up() {
    type Ask = fn(&mut Sim, ConnId);
    let cases: [(Ask, &[&str], &[u8]); 5] = [
        (|sim, id| sim.control().peer(id).write(b"hello"), &[], b"hello"),
        (|sim, id| sim.control().peer(id).notify(Note::new(1u8)), &["notified"], b""),
        (|sim, id| sim.control().peer(id).close(), &["closed finished"], b""),
        (|sim, id| sim.control().peer(id).abort(), &["closed aborted"], b""),
        (|sim, _| sim.control().shutdown(), &["stopping", "closed shut down"], b""),
    ];
    for (ask, expected, heard) in cases {
        let (mut sim, client, id, log) = idle();
        ask(&mut sim, id);
        sim.run().unwrap();
        assert_eq!(*log.borrow(), expected);
        assert_eq!(client.take_received(), heard);
        assert_eq!(sim.metrics().wakeups, 0, "{expected:?}");
    }
}

#[test]
fn a_closure_runs_although_nothing_else_is_left_to_run_for() {
    let mut sim = Sim::new(1);
    let (tell, told) = std::sync::mpsc::channel();
    sim.handle().call(move |_| tell.send(()).unwrap()).unwrap();
    sim.run().unwrap();
    assert!(told.try_recv().is_ok());
}

#[test]
fn posts_of_another_thread_are_never_taken_for_lost_wake_ups() {
    let (mut sim, client, id, _) = idle();
    let handle = sim.handle();
    let poster = std::thread::spawn(move || {
        for _ in 0..500 {
            handle.write(id, b"x").unwrap();
            std::thread::yield_now();
        }
    });
    let mut heard = 0;
    while heard < 500 {
        sim.run().unwrap();
        heard += client.take_received().len();
    }
    poster.join().unwrap();
}

/// Reads slowly, waits for timers, writes to others: enough for every list of the loop.
#[test]
fn many_connections_in_every_state_leave_nothing_behind_when_the_loop_sleeps() {
    for seed in 0..10 {
        let mut sim = sim_with(seed, |limits| {
            limits.connections_max = 20;
            limits.accepts_max = 2;
        });
        sim.set_faults(Faults::rough());
        let (echo, sink) = (serve(&mut sim, || Echo), serve(&mut sim, || Sink));
        let mut clients = Vec::new();
        for round in 0..60 {
            let client = sim.dial(if round % 3 == 0 { sink } else { echo });
            client.send(&vec![b'x'; 1 + round * 700]);
            if round % 5 == 0 {
                client.finish();
            }
            clients.push(client);
            sim.run_for(ms(round as u64 % 7)).unwrap();
            if round % 4 == 3 {
                clients.remove(0);
            }
        }
        // Each wait is looked at; the last of them is that for ever.
        sim.run().unwrap();
        clients.clear();
        sim.run().unwrap();
        assert_eq!((sim.metrics().open, sim.metrics().accepted), (0, 60), "seed {seed}");
    }
}
