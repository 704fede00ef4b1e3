//! Tunnels in every order: no byte lost or made up, and no more kept than the bounds say.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::sim::{Acceptor, Faults, Link, Sim, Socket, check};
use lariat::tunnel::{Summary, Tunnel};
use lariat::{CloseKind, Context, Input, Limits, Outcome, Protocol};

use crate::kit::{ms, serve, stream};

type Summaries = Arc<Mutex<Vec<Summary>>>;

/// A proxy to a target of the test.
fn proxy(sim: &mut Sim) -> (std::net::SocketAddr, Acceptor, Summaries) {
    let target = sim.acceptor("127.0.0.1:0").unwrap();
    let (to, summaries) = (target.local_addr(), Summaries::default());
    let kept = Arc::clone(&summaries);
    let addr = serve(sim, move || {
        let kept = Arc::clone(&kept);
        Tunnel::to(to).on_end(move |_, summary| kept.lock().unwrap().push(summary.clone()))
    });
    (addr, target, summaries)
}

fn pair(sim: &mut Sim) -> (Socket, Socket, Summaries) {
    let (addr, target, summaries) = proxy(sim);
    let client = sim.dial(addr);
    sim.run_for(ms(10)).unwrap();
    (client, target.accept().unwrap(), summaries)
}

#[test]
fn a_message_costs_one_read_and_one_write() {
    let mut sim = Sim::new(1);
    let (client, target, _) = pair(&mut sim);
    client.send(b"warm");
    sim.run_for(ms(10)).unwrap();
    let before = sim.metrics();
    for _ in 0..100 {
        client.send(&[1; 100]);
        sim.run_for(ms(1)).unwrap();
        target.send(&[2; 1000]);
        sim.run_for(ms(1)).unwrap();
    }
    let after = sim.metrics();
    assert_eq!(after.reads - before.reads, 200);
    assert_eq!(after.writes - before.writes, 200);
    assert_eq!(after.callbacks - before.callbacks, 200);
    assert_eq!((client.take_received().len(), target.take_received().len()), (100_000, 10_004));
}

#[test]
fn a_proxy_between_a_fast_sender_and_a_stopped_reader_keeps_the_marks_and_one_read() {
    let limits = Limits::default();
    let most = (limits.high_mark + limits.read_budget) as u64;
    for from_client in [true, false] {
        let mut sim = Sim::new(2);
        let mut link = Link::default();
        link.window = 1 << 20;
        sim.set_link(link);
        let (client, target, summaries) = pair(&mut sim);
        let (sender, reader) = if from_client { (&client, &target) } else { (&target, &client) };
        reader.stop_reading();
        let sent = stream(0, 8 << 20);
        sender.send(&sent);
        let mut seen = 0;
        for _ in 0..200 {
            sim.run_for(ms(1)).unwrap();
            seen = seen.max(sim.metrics().buffered);
        }
        let high = limits.high_mark as u64;
        assert!((high..=most).contains(&seen), "{seen} bytes waited, at most {most} may");
        assert_eq!(sim.metrics().held, 1, "the sender is not read");
        reader.resume_reading();
        sender.finish();
        reader.finish();
        sim.run().unwrap();
        assert_eq!(reader.take_received(), sent);
        let summary = summaries.lock().unwrap()[0].clone();
        assert_eq!(summary.to_target() + summary.to_client(), 8 << 20);
        assert!(sim.metrics().buffered == 0 && sim.metrics().open == 0);
    }
}

#[test]
fn a_slow_reader_gets_its_last_bytes_after_the_other_end_is_gone() {
    let mut sim = Sim::new(3);
    let (client, target, summaries) = pair(&mut sim);
    client.stop_reading();
    client.finish();
    let sent = stream(0, 300_000);
    target.send(&sent);
    target.finish();
    // More than a close in order would have: the reader takes a little every few seconds.
    let mut heard = Vec::new();
    for _ in 0..60 {
        sim.run_for(Duration::from_secs(2)).unwrap();
        client.read(6_000);
        heard.extend(client.take_received().into_vec());
    }
    assert_eq!(heard, sent);
    let summary = summaries.lock().unwrap()[0].clone();
    assert_eq!(summary.client().reason().kind(), CloseKind::Finished);
    assert_eq!(summary.to_client(), 300_000);
}

/// Says much, and then becomes a tunnel.
struct Greeting(Option<Tunnel>);

impl Protocol for Greeting {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(&stream(0, 600_000));
        self.0.take().into_iter().for_each(|tunnel| {
            cx.replace(tunnel);
        });
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn what_was_taken_and_never_arrived_is_not_counted_as_relayed() {
    for from_client in [true, false] {
        let mut sim = Sim::new(4);
        let mut link = Link::default();
        link.window = 16 * 1024;
        sim.set_link(link);
        let (client, target, summaries) = pair(&mut sim);
        let (sender, reader) = if from_client { (&client, &target) } else { (&target, &client) };
        reader.stop_reading();
        sender.send(&stream(0, 60_000));
        sim.run_for(ms(50)).unwrap();
        reader.reset();
        sim.run_for(ms(50)).unwrap();
        let summary = summaries.lock().unwrap()[0].clone();
        let (one, other) = (summary.client(), summary.target().unwrap());
        let (sender, reader) = if from_client { (one, other) } else { (other, one) };
        assert_eq!((sender.received(), sender.sent()), (60_000, 0));
        assert_eq!(reader.received(), 0);
        let (relayed, back) = if from_client {
            (summary.to_target(), summary.to_client())
        } else {
            (summary.to_client(), summary.to_target())
        };
        assert_eq!((relayed, back), (reader.sent(), 0));
        // So much fits into the window, and into what the system has taken.
        assert!((1..60_000).contains(&relayed), "{summary}");
        let peers = (sender.peer_addr(), reader.peer_addr());
        assert_ne!(peers.0, peers.1);
    }
}

#[test]
fn what_still_waits_of_an_earlier_protocol_is_not_counted_as_relayed() {
    let mut sim = Sim::new(4);
    let target = sim.acceptor("127.0.0.1:0").unwrap();
    let (to, summaries) = (target.local_addr(), Summaries::default());
    let kept = Arc::clone(&summaries);
    let addr = serve(&mut sim, move || {
        let kept = Arc::clone(&kept);
        let keep = move |summary: &Summary| kept.lock().unwrap().push(summary.clone());
        Greeting(Some(Tunnel::to(to).on_end(move |_, summary| keep(summary))))
    });
    let client = sim.dial(addr);
    client.stop_reading();
    sim.run_for(ms(10)).unwrap();
    assert!(sim.metrics().buffered > 0, "the greeting is long");
    let target = target.accept().unwrap();
    target.send(b"behind it");
    target.finish();
    client.resume_reading();
    client.finish();
    sim.run().unwrap();
    assert_eq!(client.take_received(), [&stream(0, 600_000)[..], b"behind it"].concat());
    assert_eq!(summaries.lock().unwrap()[0].to_client(), 9);
}

/// What one outside end of a tunnel does.
struct Outside {
    socket: Socket,
    sends: Vec<u8>,
    sent: usize,
    heard: Vec<u8>,
    resets: bool,
}

impl Outside {
    fn new(sim: &mut Sim, socket: Socket, from: usize) -> Outside {
        let choices = sim.choices();
        let much = choices.within(0..4) == 0;
        let count = choices.within(if much { 0..400_000 } else { 0..3_000 });
        let resets = choices.within(0..8) == 0;
        let sends = stream(from, count);
        Outside { socket, sends, sent: 0, heard: Vec::new(), resets }
    }

    /// One deed; true once it has done everything.
    fn act(&mut self, sim: &mut Sim) -> bool {
        self.heard.extend(self.socket.take_received().into_vec());
        let left = self.sends.len() - self.sent;
        match sim.choices().within(0..6) {
            0 => self.socket.stop_reading(),
            1 => self.socket.resume_reading(),
            _ if left > 0 => {
                let count = 1 + sim.choices().within(0..left);
                self.socket.send(&self.sends[self.sent..self.sent + count]);
                self.sent += count;
            }
            _ if self.resets => self.socket.reset(),
            _ => self.socket.finish(),
        }
        left == 0
    }
}

#[test]
fn every_byte_arrives_in_order_or_its_loss_is_counted() {
    let ended: Rc<RefCell<[u32; 2]>> = Rc::default();
    let kinds = Rc::clone(&ended);
    check(0..150, move |sim| {
        let faults = [Faults::none(), Faults::rough(), Faults::harsh()];
        let pick = sim.choices().within(0..3);
        sim.set_faults(faults[pick].clone());
        let (addr, target, summaries) = proxy(sim);
        let socket = sim.dial(addr);
        let mut client = Outside::new(sim, socket, 0);
        let mut other = None;
        let mut done = [false; 2];
        for _ in 0..60 {
            done[0] |= client.act(sim);
            if other.is_none() {
                other = target.accept().map(|socket| Outside::new(sim, socket, 77));
            }
            if let Some(other) = &mut other {
                done[1] |= other.act(sim);
            }
            let pause = sim.choices().within(0..3) as u64;
            sim.run_for(ms(pause)).unwrap();
        }
        for outside in std::iter::once(&mut client).chain(&mut other) {
            outside.socket.resume_reading();
            outside.socket.send(&outside.sends[outside.sent..]);
            outside.socket.finish();
        }
        sim.run().unwrap();
        for outside in std::iter::once(&mut client).chain(&mut other) {
            outside.heard.extend(outside.socket.take_received().into_vec());
        }
        let found = summaries.lock().unwrap().clone();
        assert!(found.len() <= 1);
        let Some(summary) = found.first() else { return };
        conserved(&client, other.as_ref(), summary);
        let whole = summary.client().reason().kind() == CloseKind::Finished;
        kinds.borrow_mut()[usize::from(whole)] += 1;
    });
    let [broken, whole] = *ended.borrow();
    assert!(broken >= 10 && whole >= 10, "{broken} broken and {whole} whole: not much was tried");
}

/// What was taken from one end has gone to the other, or its loss is in that one's reason. What an
/// outside end has heard is the beginning of what the other said, and all of it after a good end.
fn conserved(client: &Outside, target: Option<&Outside>, summary: &Summary) {
    let near = summary.client();
    let Some(far) = summary.target() else { return };
    for (from, to) in [(near, far), (far, near)] {
        let lost = to.reason().unsent() + to.reason().refused();
        let arrived = to.sent() + lost;
        // What is written to a connection whose end has been told is nobody's any more.
        assert!(arrived <= from.received(), "{summary}");
        if to.reason().kind() == CloseKind::Finished {
            assert_eq!(arrived, from.received(), "{summary}");
        }
    }
    let Some(target) = target else { return };
    for (from, to, relayed) in
        [(client, target, summary.to_target()), (target, client, summary.to_client())]
    {
        assert!(from.sends.starts_with(&to.heard), "other bytes, or in another order: {summary}");
        assert!(to.heard.len() as u64 <= relayed, "{summary}");
    }
    let good = [near, far].iter().all(|end| end.reason().kind() == CloseKind::Finished);
    if good {
        assert_eq!(client.sends.len() as u64, summary.to_target(), "{summary}");
        assert_eq!(target.sends.len() as u64, summary.to_client(), "{summary}");
        assert!(client.heard == target.sends && target.heard == client.sends, "{summary}");
    }
}
