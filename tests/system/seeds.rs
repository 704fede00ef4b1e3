//! The seeds of `check`, as the environment says.

use std::ops::Range;

use lariat::sim::{check, seeds_from_env};

use crate::kit::{command, part};

const NAME: &str = "seeds::the_environment_says_which_seeds_are_run";

#[test]
fn the_environment_says_which_seeds_are_run() {
    if part().is_some() {
        let mut ran = Vec::new();
        check(3..6, |sim| ran.push(sim.seed()));
        println!("{ran:?} and {:?}", seeds_from_env(10..20));
        return;
    }
    let cases: [(&[(&str, &str)], Range<u64>, Range<u64>); 4] = [
        (&[], 3..6, 10..20),
        (&[("LARIAT_SEED", "7")], 7..8, 7..8),
        (&[("LARIAT_SEEDS", "2")], 0..2, 0..2),
        (&[("LARIAT_SEED", "0"), ("LARIAT_SEEDS", "2")], 0..1, 0..1),
    ];
    for (variables, ran, seeds) in cases {
        let mut command = command(&[], NAME, "run");
        command.env_remove("LARIAT_SEED").env_remove("LARIAT_SEEDS");
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let line = format!("{:?} and {seeds:?}", ran.collect::<Vec<_>>());
        assert!(said.contains(&line), "{variables:?}: {line} is missing in {said}");
    }
}
