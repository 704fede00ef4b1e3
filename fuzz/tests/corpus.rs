//! The rules of the fuzz targets with bytes that are always the same: no fuzzer is needed.

use std::ops::Range;

use lariat_fuzz::{connection, framing, headers, http, simulator, tls};

/// Scripts of each length. `LARIAT_SCRIPTS` asks for more, `LARIAT_SCRIPT` for one of them alone.
const SCRIPTS: u64 = 300;

/// Bytes from a seed: SplitMix64.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn scripts() -> Range<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
    };
    match number("LARIAT_SCRIPT") {
        Some(one) => one..one + 1,
        None => 0..number("LARIAT_SCRIPTS").unwrap_or(SCRIPTS),
    }
}

/// Runs `target` with every script, and shows the one that broke a rule.
fn run_all(target: fn(&[u8]), lengths: &[usize]) {
    for seed in scripts() {
        for length in lengths {
            let script = bytes(seed, *length);
            let result = std::panic::catch_unwind(|| target(&script));
            if let Err(panic) = result {
                eprintln!("script {seed} of {length} bytes broke a rule: {script:?}");
                eprintln!("LARIAT_TELL=1 LARIAT_SCRIPT={seed} shows what happens in it");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn a_connection_keeps_its_rules_whatever_is_done_to_it() {
    run_all(connection::run, &[0, 20, 60, 250]);
}

#[test]
fn a_network_of_good_servers_answers_every_byte() {
    run_all(simulator::run, &[0, 40, 120]);
}

#[test]
fn what_http_answers_does_not_depend_on_how_requests_arrive() {
    run_all(http::run, &[0, 6, 20, 60]);
}

#[test]
fn what_a_header_says_does_not_depend_on_how_it_arrives() {
    run_all(headers::run, &[0, 8, 40, 300]);
}

#[test]
fn a_session_of_tls_hands_over_what_was_written_whatever_is_done_to_its_wire() {
    run_all(tls::run, &[0, 6, 20, 60]);
}

#[test]
fn frames_are_those_of_the_simplest_decoder_however_they_arrive() {
    run_all(framing::run, &[0, 20, 60, 250]);
}
