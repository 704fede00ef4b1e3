//! Any order of events and calls, against the model.

use proptest::prelude::*;

use super::super::Flags;
use super::rig::{Answer, Failure, MILLISECOND, Rig, Wish, small_limits};
use super::toy::{HELLO, NONSENSE, end};
use crate::grammar::Callback;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// What the next callback does.
    Plan(Answer),
    PeerSends(usize),
    PeerGreets,
    PeerEndsFilter,
    PeerSendsNonsense,
    PeerFinishes,
    PeerResets,
    /// The socket takes this many bytes from now on, and tells.
    PeerReads(usize),
    /// The socket takes no more.
    PeerStops,
    /// An event without a cause.
    Spurious(u8),
    /// A share of a turn, or parts of one in another order.
    Serve,
    Read(usize),
    Attend,
    Finish,
    SendForOthers,
    Settle,
    OtherWrites {
        count: usize,
        shared: bool,
        holder: Option<usize>,
    },
    OtherWishes(Wish),
    Note,
    Hold(usize),
    Release(usize),
    Stop,
    Time(u64),
    CutLingering,
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        2 => Just(Wish::Close),
        1 => Just(Wish::Abort),
        2 => Just(Wish::Finish),
        4 => Just(Wish::Pause),
        4 => Just(Wish::Resume),
        1 => Just(Wish::Replace),
        1 => any::<bool>().prop_map(Wish::ReplaceFiltered),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let failure = prop_oneof![
        30 => Just(None),
        1 => Just(Some(Failure::Err)),
        1 => Just(Some(Failure::Panic)),
    ];
    let bytes =
        prop_oneof![4 => Just(0usize), 4 => 1usize..20, 2 => 20usize..130, 1 => 100usize..220];
    let need = prop_oneof![6 => Just(0usize), 3 => 1usize..60, 1 => 90usize..110];
    let keep = prop_oneof![4 => Just(0usize), 2 => 1usize..30, 1 => Just(1000usize)];
    let wishes = prop_oneof![
        6 => Just(Vec::new()),
        2 => prop::collection::vec(wish(), 1..3),
    ];
    (keep, need, bytes, any::<bool>(), wishes, failure).prop_map(
        |(keep, need, write, shared, wishes, failure)| Answer {
            keep,
            need,
            write,
            shared,
            wishes,
            failure,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let holder = prop_oneof![2 => Just(None), 1 => (0usize..3).prop_map(Some)];
    let outer =
        prop_oneof![4 => Just(Wish::Finish), 2 => Just(Wish::Close), 1 => Just(Wish::Abort)];
    prop_oneof![
        12 => answer().prop_map(Step::Plan),
        12 => (1usize..150).prop_map(Step::PeerSends),
        2 => Just(Step::PeerGreets),
        1 => Just(Step::PeerEndsFilter),
        1 => Just(Step::PeerSendsNonsense),
        2 => Just(Step::PeerFinishes),
        1 => Just(Step::PeerResets),
        6 => (1usize..120).prop_map(Step::PeerReads),
        3 => Just(Step::PeerStops),
        3 => any::<u8>().prop_map(Step::Spurious),
        12 => Just(Step::Serve),
        4 => (1usize..120).prop_map(Step::Read),
        3 => Just(Step::Attend),
        2 => Just(Step::Finish),
        4 => Just(Step::SendForOthers),
        4 => Just(Step::Settle),
        5 => (1usize..80, any::<bool>(), holder)
            .prop_map(|(count, shared, holder)| Step::OtherWrites { count, shared, holder }),
        1 => outer.prop_map(Step::OtherWishes),
        2 => Just(Step::Note),
        2 => (0usize..3).prop_map(Step::Hold),
        4 => (0usize..3).prop_map(Step::Release),
        1 => Just(Step::Stop),
        6 => (1u64..40).prop_map(Step::Time),
        1 => Just(Step::CutLingering),
    ]
}

fn take(rig: &mut Rig, step: Step) {
    match step {
        Step::Plan(answer) => rig.plan.push_back(answer),
        Step::PeerSends(count) => rig.peer_sends(count),
        Step::PeerGreets => filtered_only(rig, &[HELLO]),
        Step::PeerEndsFilter => filtered_only(rig, &end()),
        Step::PeerSendsNonsense => filtered_only(rig, &[NONSENSE]),
        Step::PeerFinishes => rig.peer_finishes(),
        Step::PeerResets => rig.peer_resets(),
        Step::PeerReads(room) => rig.peer_reads(room),
        Step::PeerStops => rig.kernel.room = 0,
        Step::Spurious(bits) => rig.event(spurious(bits)),
        Step::Serve => rig.serve(),
        Step::Read(room) => {
            if !rig.is(Flags::ATTENTION) {
                rig.read(room);
            }
        }
        Step::Attend => rig.attend(),
        Step::Finish => rig.finish(false),
        Step::SendForOthers => rig.send_for_others(),
        Step::Settle => rig.settle(),
        Step::OtherWrites { count, shared, holder } => {
            let holder = holder.map(|number| rig.other(number));
            rig.other_writes(count, shared, holder);
        }
        Step::OtherWishes(wish) => rig.other_wishes(wish),
        Step::Note => {
            rig.note();
        }
        Step::Hold(number) => {
            rig.hold(rig.other(number));
        }
        Step::Release(number) => rig.release(rig.other(number)),
        Step::Stop => rig.stop(),
        Step::Time(time) => rig.advance(time * MILLISECOND + 300_000),
        Step::CutLingering => {
            rig.conn.handle_linger_cut();
            rig.finish(false);
        }
    }
}

fn filtered_only(rig: &mut Rig, wire: &[u8]) {
    if rig.is(Flags::FILTERED) {
        rig.peer_sends_wire(wire);
    }
}

fn spurious(bits: u8) -> Flags {
    Flags::READABLE.when(bits & 1 != 0)
        | Flags::WRITABLE.when(bits & 2 != 0)
        | Flags::HUNG.when(bits & 4 != 0)
        | Flags::FAULTY.when(bits & 8 != 0)
}

/// Takes the steps, then everybody is reasonable: whatever happened before, the connection ends and
/// says why.
fn run(mut rig: Rig, steps: Vec<Step>) {
    for step in steps {
        rig.check();
        if rig.reason.is_some() {
            break;
        }
        take(&mut rig, step);
    }
    rig.plan.clear();
    rig.settle();
    for number in 0..3 {
        rig.release(rig.other(number));
    }
    if rig.reason.is_none() {
        rig.other_wishes(Wish::Close);
        let began = rig.now;
        rig.settle_to_the_end();
        let took = rig.now - began;
        assert!(took <= 63 * MILLISECOND, "it took {} ms to close", took / MILLISECOND);
    }
    grammar(&rig.calls);
}

/// `closed` last and once; `eof` at most once and no `data` after it, unless another protocol took
/// over in between.
fn grammar(calls: &[Callback]) {
    let count = |what| calls.iter().filter(|call| **call == what).count();
    assert_eq!(count(Callback::Closed), 1);
    assert_eq!(calls.last(), Some(&Callback::Closed));
    for protocol in calls.split(|call| *call == Callback::Opened).skip(1) {
        let eof = protocol.iter().position(|call| *call == Callback::Eof);
        let after = eof.map_or(&[][..], |at| &protocol[at + 1..]);
        assert!(!after.contains(&Callback::Data) && !after.contains(&Callback::Eof), "{calls:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_calls_agrees_with_the_model(steps in prop::collection::vec(step(), 1..80)) {
        run(Rig::accepted(small_limits()), steps);
    }

    #[test]
    fn any_order_of_calls_on_a_connect_under_way_agrees_with_the_model(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        run(Rig::connecting(small_limits()), steps);
    }

    #[test]
    fn any_order_of_calls_with_a_filter_agrees_with_the_model(
        chatter in 0usize..3,
        greeted in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut rig = Rig::filtered(small_limits(), chatter);
        if greeted {
            rig.peer_sends_wire(&[HELLO]);
            rig.settle();
        }
        run(rig, steps);
    }
}
