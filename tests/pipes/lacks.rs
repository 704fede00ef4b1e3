//! Scenarios of the conformance list that have no meaning over pipes, by name.

/// Each group with the reason why.
const LACKS: &[(&str, &[&str])] = &[
    (
        "a callback, a handle or a socket of std connects to an address, which pipes do not have",
        &[
            "callbacks::c2_connect_inside_any_callback_connects",
            "callbacks::writes_before_a_connect_has_succeeded_wait_for_it",
            "counters::another_thread_has_the_counters_of_messages_that_nobody_answers",
            "counters::unsent_bytes_and_the_writer_that_is_held_are_counted_until_they_have_gone",
            "ends::a_connect_above_the_connection_limit_fails_and_says_so",
            "filters::c4_a_protocol_that_panics_when_it_is_asked_for_its_filter_ends_alone",
            "filters::writes_before_the_handshake_is_over_wait_for_it",
            "handles::a_connect_by_handle_runs_its_protocol",
            "limits::a_silence_counts_from_the_end_of_the_callback_that_broke_it",
            "peers::a_peer_can_be_aborted",
            "peers::a_peer_can_be_closed_and_closed_again",
            "peers::a_peer_can_be_half_closed",
            "peers::a_receiver_pushed_above_its_output_max_ends_with_output_full",
            "peers::a_relay_written_with_peers_carries_everything_both_ways",
            "peers::a_write_through_the_driver_holds_its_writer_as_one_to_a_peer_does",
            "peers::a_write_to_a_peer_reaches_its_socket",
            "peers::b13_a_stale_id_takes_everything_and_does_nothing",
            "peers::notes_arrive_in_order_and_whole",
            "peers::notes_wait_for_opened",
            "peers::what_a_callback_wrote_to_a_peer_is_known_to_the_next_one",
            "reasons::b9_a_write_that_fails_first_neither_eats_the_data_nor_makes_the_reset_an_eof",
            "stopping::a_client_that_connects_anew_in_closed_is_cancelled_once",
            "stopping::c14_a_handle_shuts_the_driver_down_and_connects_under_way_are_cancelled",
            "stuck::an_abort_of_a_relay_whose_receiver_is_stuck_is_at_once",
            "stuck::b18_a_held_connection_whose_output_is_stuck_reads_on_when_it_is_released",
            "stuck::c17_room_that_came_during_a_long_callback_puts_the_end_of_a_stall_off",
            "taps::a_tap_sees_what_others_write",
        ],
    ),
    (
        "nothing resets a pipe: an abort is the end of the stream to the peer",
        &[
            "counters::every_kind_of_end_is_counted_in_its_place",
            "ends::b9_a_reset_while_paused_closes_at_once_with_the_unread_count",
            "ends::b9_data_and_reset_at_once_are_data_then_closed",
            "ends::b9_data_before_a_reset_is_delivered_and_the_reset_is_no_eof",
            "filters::a_handshake_that_never_comes_times_out",
            "output::a_peer_that_does_not_read_ends_with_the_write_deadline",
            "output::output_above_output_max_ends_with_output_full",
            "reasons::b9_a_reset_while_flow_control_holds_is_not_taken_for_an_eof",
            "reasons::b9_a_reset_while_reading_is_paused_ends_at_once_and_counts_what_was_unread",
            "reasons::b9_all_that_came_before_a_reset_is_delivered_and_counted",
            "stuck::a_note_arrives_while_output_is_stuck_and_nothing_comes",
            "stuck::b18_a_timer_set_while_output_is_stuck_already_fires",
        ],
    ),
    (
        "a close does not linger: what the peer writes afterwards has no reader",
        &[
            "counters::connections_that_linger_and_those_that_are_open_are_counted",
            "ends::b10_unread_input_does_not_destroy_the_last_reply",
            "ends::data_and_fin_in_one_go_are_data_then_eof",
            "filters::a_close_under_a_filter_finishes_it_in_order",
            "filters::a_second_filter_is_refused",
            "reasons::a_peer_that_never_closes_cannot_hold_a_close_beyond_linger_idle",
            "reasons::b10_a_close_with_unread_input_does_not_destroy_the_answer",
        ],
    ),
    (
        "both ends are adopted and have no address; the scenario looks for a connect or for one",
        &[
            "context::both_ends_are_told_the_same_addresses_and_who_accepted",
            "counters::another_thread_has_the_counters_of_right_now",
            "counters::bytes_calls_and_callbacks_of_an_exchange_are_counted",
            "filters::a_handshake_that_never_comes_ends_with_the_time_for_the_connect",
            "taps::a_tap_lies_above_the_filter",
            "taps::a_tap_sees_both_directions_and_the_end",
            "taps::a_tap_stays_when_another_protocol_takes_over",
        ],
    ),
];

/// Whether a scenario has no meaning here.
pub(crate) fn has_no_meaning(test: &str) -> bool {
    LACKS.iter().any(|(_, tests)| tests.contains(&test))
}

/// Each name is that of a scenario, so that none is left out for ever by a name that nobody has.
#[test]
fn every_scenario_that_is_left_out_exists() {
    for test in LACKS.iter().flat_map(|(_, tests)| *tests) {
        let (file, name) = test.split_once("::").unwrap();
        let path = format!("{}/tests/conformance/{file}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(name), "{test} is no scenario");
    }
}
