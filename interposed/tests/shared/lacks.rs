//! Scenarios that need what the simulated system does not have. `README.md` lists the calls.

/// Which drivers cannot run a scenario.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    None,
    Blocking,
    Both,
}

/// `shutdown` of a listening socket is refused and does not free its address.
const SHUT_LISTENERS: [&str; 3] = [
    "listening::a_listener_that_stops_frees_its_address_in_the_same_callback",
    "listening::a_listener_that_stops_twice_does_not_stop_the_one_that_follows",
    "listening::one_that_no_loop_has_taken_over_frees_its_address_as_well",
];

/// `SO_ERROR` does not show a reset by a peer that had called `shutdown` before: a thread that may
/// not read never learns of it.
const RESETS_UNSEEN: [&str; 3] = [
    "stuck::a_note_arrives_while_output_is_stuck_and_nothing_comes",
    "stuck::an_abort_of_a_relay_whose_receiver_is_stuck_is_at_once",
    "stuck::b18_a_timer_set_while_output_is_stuck_already_fires",
];

/// A reset takes bytes along that are on their way.
const RESETS_LOSE: &str =
    "reasons::b9_a_write_that_fails_first_neither_eats_the_data_nor_makes_the_reset_an_eof";

/// A reset that comes before the accept is the end of the stream. Where threads wait beside their
/// listener, more is accepted late.
const RESETS_BEFORE_ACCEPT: [&str; 2] = [
    "ends::b9_data_and_reset_at_once_are_data_then_closed",
    "handshakes::handshakes_that_are_late_or_cut_or_closed_by_another_count_as_failed",
];
const RESET_BEFORE_ACCEPT: &str = "ends::the_socket_is_closed_when_closed_runs";

/// Without the `shutdown` an address is free when the thread of its listener has let go of it.
const MOVES: &str = "listening::a_closure_moves_a_listener";

/// No datagram goes to a broadcast address, and leaving a group that was never joined succeeds.
const GROUPS: [&str; 2] = [
    "datagrams::a_group_is_heard_from_joining_to_leaving",
    "datagrams::broadcast_has_to_be_allowed",
];

/// `shutdown` of a datagram socket does not wake a thread that sleeps in `recv_from`.
const SLEEPERS: [&str; 7] = [
    "datagrams::",
    "datagram_peers::",
    "counters::a_datagram_socket_is_counted_with_its_turns_and_the_deadline_that_ends_it",
    "counters::another_thread_has_the_counters_of_a_datagram_socket_that_does_nothing_any_more",
    "counters::each_of_many_timers_of_a_datagram_socket_is_counted",
    "jobs::a_handle_has_a_job_done_for_a_connection_and_for_a_datagram_socket",
    "handles::what_handles_write_to_a_datagram_socket_is_stale_and_thrown_away",
];

pub(crate) fn lack(scenario: &str) -> Lack {
    let both = SHUT_LISTENERS.contains(&scenario) || GROUPS.contains(&scenario);
    if both || [RESETS_LOSE, RESET_BEFORE_ACCEPT].contains(&scenario) {
        Lack::Both
    } else if RESETS_UNSEEN.contains(&scenario)
        || RESETS_BEFORE_ACCEPT.contains(&scenario)
        || scenario == MOVES
        || SLEEPERS.iter().any(|module| scenario.starts_with(module))
    {
        Lack::Blocking
    } else {
        Lack::None
    }
}
