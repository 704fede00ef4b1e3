//! Every field at its bound, below and above, and the sentence of each that cannot work.

use super::*;

/// What a change of the defaults comes to: None when it works, or what is said.
type Case<T> = (fn(&mut T), Option<&'static str>);

#[track_caller]
fn check<T: Default + std::fmt::Debug>(cases: &[Case<T>], validate: fn(&T) -> Result<()>) {
    validate(&T::default()).unwrap();
    for (change, expected) in cases {
        let mut limits = T::default();
        change(&mut limits);
        let error = validate(&limits).err();
        let found = error.as_ref().map(Error::to_string);
        let sentence = expected.map(|detail| format!("these limits cannot work: {detail}"));
        assert_eq!(found, sentence, "{limits:?}");
        if let Some(error) = error {
            assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidLimits, Op::Limits));
        }
    }
}

#[test]
fn each_limit_of_a_connection_is_valid_up_to_its_bound() {
    const BUDGETS: Option<&str> = Some("read_budget and write_budget must be at least 1 byte");
    const MAXIMA: Option<&str> = Some("input_max and output_max must be at least 1 byte");
    const IDLE: Option<&str> = Some("idle must be longer than zero; None turns it off");
    let cases: [Case<Limits>; 40] = [
        (|l| l.read_budget = 0, BUDGETS),
        (|l| l.read_budget = 1, None),
        (|l| l.read_budget = usize::MAX, None),
        (|l| l.write_budget = 0, BUDGETS),
        (|l| l.write_budget = 1, None),
        (|l| l.write_budget = usize::MAX, None),
        (|l| l.input_max = 0, MAXIMA),
        (|l| l.input_max = 1, None),
        (|l| l.input_max = 1024 * MIB, None),
        (|l| l.input_max = 1024 * MIB + 1, Some("input_max must be at most 1 GiB")),
        (|l| l.input_max = usize::MAX, Some("input_max must be at most 1 GiB")),
        (|l| (l.low_mark, l.high_mark, l.output_max) = (0, 0, 0), MAXIMA),
        (|l| (l.low_mark, l.high_mark, l.output_max) = (0, 0, 1), None),
        (|l| (l.low_mark, l.high_mark, l.output_max) = (1, 1, 1), None),
        (|l| (l.high_mark, l.output_max) = (usize::MAX, usize::MAX), None),
        (|l| l.output_max = l.high_mark, None),
        (|l| l.output_max = l.high_mark - 1, Some("high_mark must not be above output_max")),
        (|l| l.high_mark = l.output_max, None),
        (|l| l.high_mark = l.output_max + 1, Some("high_mark must not be above output_max")),
        (|l| l.low_mark = l.high_mark, None),
        (|l| l.low_mark = l.high_mark + 1, Some("low_mark must not be above high_mark")),
        (|l| l.low_mark = 0, None),
        (|l| l.notes_max = 0, None),
        (|l| l.notes_max = usize::MAX, None),
        (|l| l.idle = None, None),
        (|l| l.idle = Some(Duration::ZERO), IDLE),
        (|l| l.idle = Some(Duration::from_nanos(1)), None),
        (|l| l.idle = Some(Duration::MAX), None),
        (|l| l.connect = Duration::ZERO, None),
        (|l| l.connect = Duration::MAX, None),
        (|l| l.handshake = Duration::ZERO, None),
        (|l| l.handshake = Duration::MAX, None),
        (|l| l.write_stall = Duration::ZERO, None),
        (|l| l.write_stall = Duration::MAX, None),
        (|l| l.close_deadline = Duration::ZERO, None),
        (|l| l.close_deadline = Duration::MAX, None),
        (|l| l.linger_idle = Duration::ZERO, None),
        (|l| l.linger_idle = Duration::MAX, None),
        (|l| l.linger_total = Duration::ZERO, None),
        (|l| l.linger_total = Duration::MAX, None),
    ];
    check(&cases, Limits::validate);
}

#[test]
fn each_limit_of_a_driver_is_valid_up_to_its_bound() {
    const BLAME: Option<&str> = Some("slow_callback must be longer than zero; None turns it off");
    const SPIN: Option<&str> = Some("spin must be longer than zero; None turns it off");
    let cases: [Case<DriverLimits>; 48] = [
        (|l| l.jobs.threads = 0, Some("jobs.threads must be at least 1")),
        (|l| l.jobs.threads = 1, None),
        (|l| l.jobs.threads = 1024, None),
        (|l| l.jobs.threads = 1025, Some("jobs.threads must be at most 1024")),
        (|l| l.jobs.queue = 0, Some("jobs.queue must be at least 1")),
        (|l| l.jobs.queue = 1, None),
        (|l| l.jobs.queue = usize::MAX, None),
        (|l| l.jobs.deadline = Duration::ZERO, Some("jobs.deadline must be longer than zero")),
        (|l| l.jobs.deadline = Duration::MAX, None),
        (|l| l.lookups.threads = 0, Some("lookups.threads must be at least 1")),
        (|l| l.lookups.threads = 1, None),
        (|l| l.lookups.queue = 0, Some("lookups.queue must be at least 1")),
        (|l| l.lookups.queue = 1, None),
        (
            |l| l.lookups.deadline = Duration::ZERO,
            Some("lookups.deadline must be longer than zero"),
        ),
        (|l| l.lookups.deadline = Duration::from_nanos(1), None),
        (|l| l.connections_max = 0, Some("connections_max must be at least 1")),
        (
            |l| l.connections_per_address = Some(0),
            Some("connections_per_address must be at least 1; None turns it off"),
        ),
        (|l| l.connections_per_address = Some(1), None),
        (|l| l.connections_max = 1, None),
        (|l| l.connections_max = 1 << 30, None),
        (|l| l.connections_max = (1 << 30) + 1, Some("connections_max must be at most 2^30")),
        (|l| l.overload = Overload::Shed, None),
        (|l| l.accepts_max = 0, Some("accepts_max must be at least 1")),
        (|l| l.accepts_max = 1, None),
        (|l| l.accepts_max = usize::MAX, None),
        (|l| l.posts_max = 0, Some("posts_max must be at least 1")),
        (|l| l.posts_max = 1, None),
        (|l| l.posts_max = usize::MAX, None),
        (|l| l.timers_max = 0, Some("timers_max must be at least 1")),
        (|l| l.timers_max = 1, None),
        (|l| l.timers_max = usize::MAX, None),
        (|l| l.lingering_max = 0, Some("lingering_max must be at least 1")),
        (|l| l.lingering_max = 1, None),
        (|l| l.lingering_max = 1 << 30, None),
        (|l| l.lingering_max = (1 << 30) + 1, Some("lingering_max must be at most 2^30")),
        (|l| l.events_max = 0, Some("events_max must be at least 1")),
        (|l| l.events_max = 1, None),
        (|l| l.events_max = 1 << 20, None),
        (|l| l.events_max = (1 << 20) + 1, Some("events_max must be at most 2^20")),
        (|l| l.drain = Duration::ZERO, None),
        (|l| l.drain = Duration::MAX, None),
        (|l| l.slow_callback = None, None),
        (|l| l.slow_callback = Some(Duration::ZERO), BLAME),
        (|l| l.slow_callback = Some(Duration::from_nanos(1)), None),
        (|l| l.slow_callback = Some(Duration::MAX), None),
        (|l| l.spin = Some(Duration::ZERO), SPIN),
        (|l| l.spin = Some(Duration::from_nanos(1)), None),
        (|l| l.spin = Some(Duration::MAX), None),
    ];
    check(&cases, DriverLimits::validate);
}

#[test]
fn the_blocking_driver_has_the_same_limits_but_for_the_connections() {
    let mut limits = DriverLimits::blocking();
    assert_eq!(limits.connections_max, 256);
    limits.connections_max = DriverLimits::default().connections_max;
    assert_eq!(limits, DriverLimits::default());
    DriverLimits::blocking().validate().unwrap();
}

#[test]
fn the_largest_output_max_of_all_connections_is_kept() {
    let most = OutputMax::default();
    assert_eq!(most.get(), 8 * MIB);
    let with = |output_max| Limits { output_max, ..Limits::default() };
    for (output_max, expected) in [(9 * MIB, 9 * MIB), (MIB, 9 * MIB), (usize::MAX, usize::MAX)] {
        most.note(&with(output_max));
        assert_eq!(most.get(), expected);
    }
}

#[test]
fn the_defaults_are_those_that_the_documentation_says() {
    let (kib, mib, s) = (1024, 1024 * 1024, Duration::from_secs);
    let limits = Limits::default();
    let bytes = [limits.read_budget, limits.input_max, limits.high_mark, limits.low_mark];
    assert_eq!(bytes, [256 * kib, mib, 64 * kib, 16 * kib]);
    assert_eq!((limits.write_budget, limits.output_max, limits.notes_max), (mib, 8 * mib, 64));
    let times = [limits.connect, limits.handshake, limits.write_stall, limits.close_deadline];
    assert_eq!(times, [s(30), s(10), s(30), s(10)]);
    assert_eq!((limits.idle, limits.linger_idle, limits.linger_total), (None, s(2), s(5)));
    let driver = DriverLimits::default();
    assert_eq!((driver.connections_max, driver.overload), (10_000, Overload::Pause));
    let counts = [driver.posts_max, driver.timers_max, driver.lingering_max, driver.events_max];
    assert_eq!((driver.accepts_max, counts), (64, [1024; 4]));
    assert_eq!((driver.drain, driver.spin), (s(30), None));
    assert_eq!(driver.slow_callback, Some(Duration::from_millis(100)));
    let jobs = |limits: &JobLimits| (limits.threads, limits.queue, limits.deadline);
    assert_eq!(jobs(&driver.jobs), (4, 1024, s(30)));
    assert_eq!(jobs(&driver.lookups), (2, 256, s(5)));
    assert_eq!(DriverLimits::blocking().connections_max, 256);
}
