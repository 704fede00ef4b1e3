//! Pseudo-random numbers for protocols and for the simulator: SplitMix64, not for secrets.

/// A stream of numbers that depends on its seed alone.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number, any of the 2^64 alike.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when the bound is 0. The bias of the multiplication is far below
    /// what a test or a jitter could detect.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True in `of_thousand` cases of a thousand.
    pub(crate) fn chance(&mut self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.below(1000) < u64::from(of_thousand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_on_every_machine() {
        let mut random = Random::new(1234567);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(first, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn a_chance_is_a_number_below_a_thousand_and_none_draws_nothing() {
        let (mut random, mut same) = (Random::new(7), Random::new(7));
        for of_thousand in (0..=1000).cycle().take(20_020) {
            let expected = of_thousand > 0 && same.below(1000) < u64::from(of_thousand);
            assert_eq!(random.chance(of_thousand), expected, "{of_thousand} of a thousand");
            assert_eq!(random.0, same.0, "{of_thousand} of a thousand");
        }
    }

    #[test]
    fn below_stays_below() {
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }
}
