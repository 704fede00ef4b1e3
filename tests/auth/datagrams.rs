//! Sealed datagrams: over a network that loses, repeats and reorders, and over real sockets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::auth::{AuthError, AuthSession, DatagramOpener, DatagramSealer, Role, Sealed};
use lariat::sim::{Faults, Sim};
use lariat::{
    Context, Datagram, DatagramContext, DatagramOptions, DatagramProtocol, Driver, Endpoint, Input,
    Outcome, Protocol, Timer,
};

use crate::kit::{everywhere, pair, token};

type Pair = (DatagramSealer, DatagramOpener);

fn ends(session: &[u8]) -> (Pair, Pair) {
    let token = token(1);
    (token.datagrams(Role::Client, session), token.datagrams(Role::Server, session))
}

fn sealed(sealer: &mut DatagramSealer, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    sealer.seal(payload, &mut datagram).unwrap();
    datagram
}

#[test]
fn a_datagram_passes_once_and_its_length_is_known() {
    let (mut client, mut server) = ends(b"1");
    for payload in [&b""[..], b"x", &[7; 60_000]] {
        let datagram = sealed(&mut client.0, payload);
        assert_eq!(datagram.len(), payload.len() + DatagramSealer::OVERHEAD);
        assert_eq!(server.1.open(&datagram), Ok(payload));
        assert!(matches!(server.1.open(&datagram), Err(AuthError::Repeated(_))));
    }
}

#[test]
fn a_datagram_that_was_changed_sent_back_or_made_for_another_session_does_not_pass() {
    let (mut client, mut server) = ends(b"1");
    let datagram = sealed(&mut client.0, b"payload");
    for at in 0..datagram.len() {
        let mut changed = datagram.clone();
        changed[at] ^= 1;
        assert_eq!(server.1.open(&changed), Err(AuthError::Changed), "byte {at}");
    }
    for length in 0..datagram.len() {
        assert_eq!(server.1.open(&datagram[..length]), Err(AuthError::Changed), "{length} bytes");
    }
    assert_eq!(client.1.open(&datagram), Err(AuthError::Changed), "sent back");
    assert_eq!(ends(b"2").1.1.open(&datagram), Err(AuthError::Changed), "another session");
    let mut other = token(2).datagrams(Role::Server, b"1").1;
    assert_eq!(other.open(&datagram), Err(AuthError::Changed), "another token");
    assert_eq!(server.1.open(&datagram), Ok(&b"payload"[..]), "nothing of that has counted");
}

#[test]
fn a_number_that_was_made_up_does_not_move_the_window() {
    let (mut client, mut server) = ends(b"1");
    let datagram = sealed(&mut client.0, b"first");
    let mut far = sealed(&mut client.0, b"second");
    far[..8].copy_from_slice(&1_000_000_u64.to_be_bytes());
    assert_eq!(server.1.open(&far), Err(AuthError::Changed));
    assert_eq!(server.1.open(&datagram), Ok(&b"first"[..]));
}

#[test]
fn datagrams_pass_out_of_order_down_to_the_127th_below_the_highest() {
    let (mut client, mut server) = ends(b"1");
    let all: Vec<_> = (0..130).map(|_| sealed(&mut client.0, b"x")).collect();
    assert!(server.1.open(&all[128]).is_ok());
    assert_eq!(server.1.open(&all[0]), Err(AuthError::Old(0)));
    for number in (1..128).rev() {
        assert!(server.1.open(&all[number]).is_ok(), "{number}");
        assert_eq!(server.1.open(&all[number]), Err(AuthError::Repeated(number as u64)));
    }
    assert!(server.1.open(&all[129]).is_ok());
    assert_eq!(server.1.open(&all[1]), Err(AuthError::Old(1)));
}

// ---- sockets ------------------------------------------------------------------------------------

/// Answers each datagram that passes, and counts those that do not.
struct Server {
    ends: Pair,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    passed: Vec<Vec<u8>>,
    refused: usize,
}

impl DatagramProtocol for Server {
    fn datagram(&mut self, cx: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
        let mut counts = self.counts.lock().unwrap();
        match self.ends.1.open(datagram) {
            Ok(payload) => {
                counts.passed.push(payload.to_vec());
                let mut answer = Vec::new();
                self.ends.0.seal(payload, &mut answer)?;
                cx.send_to(&answer, datagram.from())?;
            }
            Err(_) => counts.refused += 1,
        }
        Ok(())
    }
}

/// Sends numbers, the next one by a timer, and every datagram twice.
struct Client {
    ends: Pair,
    to: Endpoint,
    next: u32,
    most: u32,
    counts: Arc<Mutex<Counts>>,
}

const NEXT: Timer = Timer::new(1);

impl DatagramProtocol for Client {
    fn opened(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        self.timeout(cx, NEXT)
    }

    fn timeout(&mut self, cx: &mut DatagramContext<'_>, _: Timer) -> Outcome {
        if self.next == self.most {
            cx.driver().shutdown();
            return Ok(());
        }
        let mut datagram = Vec::new();
        self.ends.0.seal(&self.next.to_be_bytes(), &mut datagram)?;
        cx.send_to(&datagram, self.to)?;
        cx.send_to(&datagram, self.to)?;
        self.next += 1;
        cx.set_timer(NEXT, Duration::from_millis(5));
        Ok(())
    }

    fn datagram(&mut self, _: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
        let mut counts = self.counts.lock().unwrap();
        match self.ends.1.open(datagram) {
            Ok(payload) => counts.passed.push(payload.to_vec()),
            Err(_) => counts.refused += 1,
        }
        Ok(())
    }
}

/// What passed at the server and at the client, and how many datagrams the server refused.
fn talk_on(driver: &mut dyn Driver, most: u32) -> (Counts, Counts) {
    let (client, server) = ends(b"socket");
    let (served, answered) = (Arc::<Mutex<Counts>>::default(), Arc::<Mutex<Counts>>::default());
    let options = DatagramOptions::default();
    let counts = Arc::clone(&served);
    let server = Server { ends: server, counts };
    let id = driver.control().bind_with("127.0.0.1:0", options.clone(), server).unwrap();
    let to = driver.bound_addr(id).unwrap();
    let counts = Arc::clone(&answered);
    let client = Client { ends: client, to, next: 0, most, counts };
    driver.control().bind_with("127.0.0.1:0", options, client).unwrap();
    driver.run().unwrap();
    (std::mem::take(&mut *served.lock().unwrap()), std::mem::take(&mut *answered.lock().unwrap()))
}

#[test]
fn each_datagram_counts_once_on_every_driver() {
    everywhere(|driver| {
        let (served, answered) = talk_on(driver, 20);
        assert!(!served.passed.is_empty());
        let mut once = served.passed.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), served.passed.len(), "none has passed twice");
        assert!(answered.passed.iter().all(|payload| served.passed.contains(payload)));
    });
    let (served, answered) = talk_on(&mut Sim::new(1), 20);
    assert_eq!((served.passed.len(), served.refused), (20, 20), "each of them came twice");
    assert_eq!((answered.passed.len(), answered.refused), (20, 0));
}

#[test]
fn a_network_that_repeats_and_reorders_gets_nothing_through_twice() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        sim.set_faults(Faults::rough());
        let (served, _) = talk_on(&mut sim, 60);
        let mut once = served.passed.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), served.passed.len());
    }
}

#[test]
fn a_connection_gives_keys_for_datagrams_of_its_own() {
    type Kept = Arc<Mutex<Vec<(Role, Pair)>>>;
    struct Keeping(Kept);
    impl Protocol for Keeping {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            let session = cx.session::<AuthSession>().unwrap();
            self.0.lock().unwrap().push((session.role(), session.datagrams()));
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    let (server, client) = pair();
    let mut sim = Sim::new(1);
    let kept = Kept::default();
    let keeps = Arc::clone(&kept);
    let listener = sim
        .listen("127.0.0.1:1", move |_| Some(Sealed::server(&server, Keeping(Arc::clone(&keeps)))))
        .unwrap();
    let addr = sim.addresses(listener)[0];
    for _ in 0..2 {
        sim.connect(addr, Sealed::client(&client, Keeping(Arc::clone(&kept))));
        sim.run_for(Duration::from_millis(100)).unwrap();
    }
    let mut kept = std::mem::take(&mut *kept.lock().unwrap());
    assert_eq!(kept.len(), 4);
    let (mut clients, mut servers): (Vec<_>, Vec<_>) =
        kept.drain(..).partition(|(role, _)| *role == Role::Client);
    let datagram = sealed(&mut clients[0].1.0, b"x");
    assert_eq!(servers[1].1.1.open(&datagram), Err(AuthError::Changed), "another connection's");
    assert_eq!(servers[0].1.1.open(&datagram), Ok(&b"x"[..]));
    let back = sealed(&mut servers[0].1.0, b"y");
    assert_eq!(clients[0].1.1.open(&back), Ok(&b"y"[..]));
}
