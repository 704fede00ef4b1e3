//! The calls of the network alone, without a driver.

use super::*;

/// Two ends of an open connection, each of them a driver's.
fn pair(network: &mut Network) -> (usize, usize) {
    let at = |port| Endpoint::from(([10, 0, 0, 1], port));
    let [here, there] = [(1, 2), (2, 1)].map(|(local, remote)| {
        let source = Source::new(Owner::Network);
        network.add(at(local), at(remote), Progress::Open, None, source)
    });
    network.endpoints[here].other = Some(there);
    network.endpoints[there].other = Some(here);
    (here, there)
}

/// Lets everything arrive that is under way.
fn settle(network: &mut Network) {
    while network.next_event().is_some() {
        network.poll(None, None).unwrap();
    }
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

type Hear = fn(&mut Network, usize) -> Option<i32>;

/// The calls that hear of a reset.
const HEAR: [(&str, Hear); 3] = [
    ("read", |network, end| errno(network.read(end, &mut [0; 9]))),
    ("write", |network, end| errno(network.write(end, &[b"bytes"]))),
    ("take_error", |network, end| network.take_error(end).and_then(|e| e.raw_os_error())),
];

#[test]
fn a_reset_is_heard_once_by_whichever_call_comes_first_and_nothing_follows_it() {
    for (name, hear) in HEAR {
        let mut network = Network::new(Tape::new(1));
        let (here, there) = pair(&mut network);
        network.reset_on_close(there);
        network.close(there);
        settle(&mut network);
        assert_eq!(hear(&mut network, here), Some(libc::ECONNRESET), "{name}");
        assert_eq!(network.read(here, &mut [0; 9]).unwrap(), 0, "{name}");
        assert_eq!(errno(network.write(here, &[b"bytes"])), Some(libc::EPIPE), "{name}");
        assert!(network.take_error(here).is_none(), "{name}");
        // What comes afterwards is for nobody.
        network.transmit(there, Segment::Bytes(b"late".to_vec()));
        settle(&mut network);
        assert_eq!(network.read(here, &mut [0; 9]).unwrap(), 0, "{name}");
        network.close(here);
        assert_eq!(network.endpoints[there].under_way.len(), 0, "{name}: an end says nothing more");
    }
}

#[test]
fn an_end_that_has_been_reset_and_not_heard_of_it_says_nothing_when_it_closes() {
    let mut network = Network::new(Tape::new(1));
    let (here, there) = pair(&mut network);
    network.break_end(here, libc::ETIMEDOUT);
    network.break_end(here, libc::ECONNRESET);
    network.close(here);
    network.close(here);
    assert_eq!(network.endpoints[there].under_way.len(), 0);
    // The first error counts.
    assert_eq!(network.endpoints[here].error, Some(libc::ETIMEDOUT));
}

#[test]
fn an_open_end_finishes_when_it_closes_and_resets_where_input_is_left_or_it_is_asked_to() {
    for (unread, asked, resets) in
        [(false, false, false), (true, false, true), (false, true, true), (true, true, true)]
    {
        let mut network = Network::new(Tape::new(1));
        let (here, there) = pair(&mut network);
        if unread {
            network.write(there, &[b"unread"]).unwrap();
            settle(&mut network);
        }
        if asked {
            network.reset_on_close(here);
        }
        network.close(here);
        settle(&mut network);
        let end = &network.endpoints[there];
        assert_eq!((end.fin_arrived, end.error.is_some()), (!resets, resets));
        let error = errno(network.write(there, &[b"bytes"]));
        assert_eq!(error, resets.then_some(libc::ECONNRESET));
    }
}

#[test]
fn a_call_that_is_cut_short_moves_at_least_a_byte_and_fewer_than_there_are() {
    let mut counts = [[0; 4]; 2];
    for seed in 0..100 {
        let mut network = Network::new(Tape::new(seed));
        let (here, there) = pair(&mut network);
        network.faults.short_writes = 1000;
        network.faults.short_reads = 1000;
        counts[0][network.write(here, &[b"abc"]).unwrap()] += 1;
        let sent = network.endpoints[there].under_way_bytes;
        settle(&mut network);
        network.endpoints[there].arrived = b"abc".to_vec().into();
        let before = network.now();
        counts[1][network.read(there, &mut [0; 9]).unwrap()] += 1;
        // To a driver a short read means that nothing follows: an event tells of the rest.
        assert_eq!(network.next_event(), Some(before + 1));
        assert!((1..3).contains(&sent));
    }
    for [none, one, two, three] in counts {
        assert!(none == 0 && one > 20 && two > 20 && three == 0, "{one} and {two} of 100");
    }
}

#[test]
fn a_writer_hears_of_room_a_latency_after_it_has_come() {
    let mut network = Network::new(Tape::new(1));
    network.link.latency = std::time::Duration::from_millis(5);
    network.link.window = 4;
    let (here, there) = pair(&mut network);
    assert_eq!(network.write(here, &[b"abcdef"]).unwrap(), 4);
    assert_eq!(network.write(here, &[b"ef"]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    settle(&mut network);
    let before = network.now();
    network.read(there, &mut [0; 9]).unwrap();
    assert_eq!(network.next_event(), Some(before + 5_000_000));
    assert_eq!(network.write(here, &[b"ef"]).unwrap(), 2);
}
