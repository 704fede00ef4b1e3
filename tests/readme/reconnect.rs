/// For `closed`: connects again after 1, 2, 4, .. 64 s. `opened` sets `failures` back to 0.
fn reconnect(cx: &mut Context<'_>, server: Endpoint, failures: u32) {
    let delay = Duration::from_secs(1 << failures.min(6));
    cx.after(delay, move |driver| {
        driver.connect(server, Client { server, failures: failures + 1 });
    });
}
