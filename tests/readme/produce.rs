/// For `opened` and `drained`: sends numbers as fast as the client reads them.
fn produce(cx: &mut Context<'_>, next: &mut u32) -> Outcome {
    while *next < 100_000 && !cx.is_congested() {
        writeln!(cx, "{next}")?;
        *next += 1;
    }
    Ok(())
}
