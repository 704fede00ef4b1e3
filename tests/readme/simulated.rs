use lariat::sim::{Faults, check};

#[test]
fn an_echo_is_whole_whatever_the_network_does() {
    check(0..100, |sim| {
        sim.set_faults(Faults::rough());
        let listener = sim.listen("127.0.0.1:7000", |_| Some(Echo)).unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        client.send(&[7; 100_000]);
        client.finish();
        sim.run().unwrap();
        assert_eq!(client.take_received(), [7; 100_000]);
    });
}
