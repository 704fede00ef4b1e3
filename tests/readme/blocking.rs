fn main() -> lariat::Result<()> {
    lariat::blocking::serve("127.0.0.1:7000", || Echo)
}
