/// Connects again whenever the connection ends, after a random delay: at most 0.5, 1, 2, .. 30 s.
fn keep(control: &mut Control<'_>, server: &str) -> lariat::Result<Keeper> {
    let reconnect = Reconnect::to(server).on_end(|_, ended| println!("{ended}"));
    reconnect.start(control, |_| Client)
}
