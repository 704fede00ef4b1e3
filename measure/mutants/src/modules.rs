//! Which mutants are taken, and in which order.

use std::collections::HashMap;

use crate::plant::Mutant;

/// Modules without I/O: all their mutants are taken. A name stands for a file or a folder.
const WHOLE: &[&str] = &[
    "id",
    "buffer",
    "timer",
    "connection",
    "protocol",
    "datagram/state",
    "datagram/queue",
    "datagram/call",
    "limits",
    "admission",
    "reason",
    "endpoint",
    "address",
    "options",
    "protocols/framing",
    "protocols/http",
    "sending",
    "dispatch",
    "episode",
    "guard",
];

/// What goes first, since it was seen the least. What is not named follows in alphabetical order.
const FIRST: &[&str] = &[
    "blocking",
    "event_loop",
    "sim",
    "datagram",
    "protocol",
    "handle",
    "driver",
    "socket",
    "protocols/framing",
    "protocols/http",
    "connection",
];

/// Of any other file.
const SAMPLE: usize = 40;

/// `src/blocking/cell.rs` belongs to `blocking`, `src/handle.rs` to `handle`.
pub fn module(file: &str) -> &str {
    let path = file.strip_prefix("src/").unwrap_or(file);
    let depth = if path.starts_with("protocols/") { 1 } else { 0 };
    match path.match_indices('/').nth(depth) {
        Some((end, _)) => &path[..end],
        None => path.strip_suffix(".rs").unwrap_or(path),
    }
}

fn is_in(file: &str, module: &str) -> bool {
    let path = file.strip_prefix("src/").unwrap_or(file);
    path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// FNV-1a: the same sample on every machine and with every release of the standard library.
fn hash(seed: u64, key: &str) -> u64 {
    seed.to_le_bytes().iter().chain(key.as_bytes()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn turn(module: &str) -> usize {
    FIRST.iter().position(|first| *first == module).unwrap_or(FIRST.len())
}

/// The sample, in the order in which it is run.
pub fn sample(mut all: Vec<Mutant>, seed: u64) -> Vec<Mutant> {
    all.sort_by_cached_key(|mutant| (mutant.file.clone(), hash(seed, &mutant.key)));
    let (mut file, mut of_file) = (String::new(), 0);
    all.retain(|mutant| {
        if mutant.file != file {
            file.clone_from(&mutant.file);
            of_file = 0;
        }
        of_file += 1;
        of_file <= SAMPLE || WHOLE.iter().any(|module| is_in(&mutant.file, module))
    });
    // Files of a module take turns, so that a run that is cut short has looked at each.
    all.sort_by_cached_key(|mutant| {
        let module = module(&mutant.file);
        (turn(module), module.to_owned(), hash(seed, &mutant.key))
    });
    // A few of every module come before the rest of any.
    let (mut of_module, mut round) = (HashMap::new(), Vec::with_capacity(all.len()));
    for mutant in &all {
        let count = of_module.entry(module(&mutant.file).to_owned()).or_insert(0);
        *count += 1;
        round.push(*count > SAMPLE);
    }
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for (mutant, later) in all.into_iter().zip(round) {
        if later { &mut rest } else { &mut first }.push(mutant);
    }
    first.append(&mut rest);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_its_folder() {
        assert_eq!(module("src/blocking/cell.rs"), "blocking");
        assert_eq!(module("src/handle.rs"), "handle");
        assert_eq!(module("src/handle/mailbox.rs"), "handle");
        assert_eq!(module("src/protocols/http/client/mod.rs"), "protocols/http");
    }

    #[test]
    fn a_sample_takes_forty_of_a_file_and_all_of_what_has_no_io() {
        let of = |file: &str| -> Vec<Mutant> {
            let made = |n| Mutant {
                key: format!("{file} {n}"),
                file: file.into(),
                line: n,
                function: String::new(),
                what: String::new(),
            };
            (0..50).map(made).collect()
        };
        let all = [of("src/sim/mod.rs"), of("src/id.rs"), of("src/blocking/mod.rs")].concat();
        let sample = sample(all, 1);
        assert_eq!(sample.len(), 40 + 50 + 40);
        assert!(sample[..40].iter().all(|mutant| mutant.file == "src/blocking/mod.rs"));
        assert!(sample[40..80].iter().all(|mutant| mutant.file == "src/sim/mod.rs"));
        assert!(sample[80..].iter().all(|mutant| mutant.file == "src/id.rs"));
    }
}
