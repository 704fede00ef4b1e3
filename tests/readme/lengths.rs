use lariat::sim::{Probe, every_split};
use lariat::{Context, Input, Outcome, Protocol};

/// Answers each line with its length.
struct Lengths;

impl Protocol for Lengths {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            cx.write(format!("{end}\n").as_bytes());
            input.consume(end + 1);
        }
        Ok(())
    }
}

#[test]
fn lines_are_measured_however_they_arrive() {
    let mut probe = Probe::new(Lengths);
    probe.receive(b"one\nthree\nha");
    assert_eq!(probe.sent(), b"3\n5\n");
    every_split(|| Lengths, b"one\nthree\nhalf");
}
