//! What to notice in a run: sentences that its figures choose and fill.

use crate::labels::{Label, Lang, bytes, fill, number, server, time};
use crate::run::{Left, LeftOut, Point, Run, Sample, Scene, Spread};
use crate::scenes::middle_connections;
use crate::table::connections_title;

/// What a sentence is about: the page has it beside the picture of the same topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    Throughput,
    Fairness,
    Beside,
    Curve,
    Memory,
    Switches,
    Slow,
    Waiting,
    Queue,
    Python,
    Load,
}

pub(crate) struct Note {
    pub(crate) topic: Topic,
    pub(crate) text: String,
}

struct Writer<'a> {
    run: &'a Run,
    lang: Lang,
    notes: Vec<Note>,
}

/// Other programs that use more of the machine than this many cores are named.
const OTHERS_CORES: f64 = 0.15;
/// A load that left its requests later than this had a machine that did much else.
const LATE_US: f64 = 1000.0;

/// All sentences that the run has the figures for.
pub(crate) fn notes(run: &Run, lang: Lang) -> Vec<Note> {
    let mut writer = Writer { run, lang, notes: Vec::new() };
    let counts = &run.plan.connections;
    writer.serial();
    if let Some(&least) = counts.first() {
        writer.median(least);
    }
    if let Some(&most) = counts.last() {
        writer.rate(most);
        writer.memory(most);
        writer.switches(most);
        writer.calls();
    }
    writer.slow();
    writer.waiting();
    writer.queues();
    writer.idle();
    writer.beside();
    writer.python(middle_connections(&run.plan));
    writer.late();
    writer.busy();
    writer.notes
}

/// What was left out, as sentences.
pub(crate) fn left_out(run: &Run, lang: Lang) -> Vec<String> {
    let sentence = |left: &LeftOut| {
        let label = match left.what {
            Left::Python => Label::LeftPython,
            Left::PythonHttp => Label::LeftPythonHttp,
            Left::Strace => Label::LeftStrace,
            Left::Files => Label::LeftFiles,
            Left::Failed => Label::LeftFailed,
        };
        let max = run.machine.files_max.to_string();
        fill(label.text(lang), &[("detail", left.detail.clone()), ("max", max)])
    };
    run.left_out.iter().map(sentence).collect()
}

impl Writer<'_> {
    fn add(&mut self, topic: Topic, label: Label, values: &[(&str, String)]) {
        self.notes.push(Note { topic, text: fill(label.text(self.lang), values) });
    }

    fn number(&self, value: f64) -> String {
        number(value, self.lang)
    }

    /// `1 connection`, `100 connections`.
    fn connections(&self, count: usize) -> String {
        connections_title(count, 0, self.lang)
    }

    fn time(&self, micros: f64) -> String {
        time(micros, self.lang)
    }

    /// Threads and the reactor under the same load.
    fn both(&self, scene: Scene, connections: usize) -> Option<(&Point, &Point)> {
        let point = |server| self.run.point(scene, server, connections);
        point("threads").zip(point("reactor"))
    }

    fn scene(&self, scene: Scene, server: &str, open: bool) -> Option<&Point> {
        self.run.points(scene).find(|p| p.server == server && p.rate.is_some() == open)
    }

    fn serial(&mut self) {
        let crowd = self.run.points(Scene::Steady).filter(|point| point.server == "serial");
        let worst = crowd.filter_map(Point::middle_round).max_by_key(|round| round.asking);
        let Some(round) = worst.filter(|round| round.served < round.asking) else { return };
        let [served, asking] = [round.served, round.asking].map(|n| self.number(n as f64));
        let values = [("served", served), ("asking", asking)];
        self.add(Topic::Fairness, Label::NoteSerial, &values);
    }

    fn median(&mut self, connections: usize) {
        let Some((threads, reactor)) = self.both(Scene::Steady, connections) else { return };
        let [a, b] = [threads, reactor].map(|point| point.spread(|sample| sample.p50));
        let label = match order(&a, &b) {
            Order::Below => Label::NoteMedianThreads,
            Order::Above => Label::NoteMedianReactor,
            Order::Same => Label::NoteMedianSame,
        };
        let values = [
            ("n", self.connections(connections)),
            ("a", self.time(a.middle)),
            ("b", self.time(b.middle)),
        ];
        self.add(Topic::Curve, label, &values);
    }

    fn rate(&mut self, connections: usize) {
        let Some((threads, reactor)) = self.both(Scene::Steady, connections) else { return };
        let [a, b] = [threads, reactor].map(|point| point.spread(|sample| sample.per_s));
        let [ca, cb] = [threads, reactor].map(|point| point.spread(|s| s.cpu_us).middle);
        let label = match order(&a, &b) {
            Order::Above => Label::NoteRateThreads,
            Order::Below => Label::NoteRateReactor,
            Order::Same => Label::NoteRateSame,
        };
        let values = [
            ("n", self.connections(connections)),
            ("a", self.number(a.middle)),
            ("b", self.number(b.middle)),
            ("ca", self.time(ca)),
            ("cb", self.time(cb)),
            ("cores", self.run.machine.cores.to_string()),
        ];
        self.add(Topic::Throughput, label, &values);
    }

    fn memory(&mut self, connections: usize) {
        let Some((threads, reactor)) = self.both(Scene::Steady, connections) else { return };
        let kb = |point: &Point| {
            bytes(point.spread(|sample| sample.resident_kb).middle * 1024.0, self.lang)
        };
        let count = threads.rounds.iter().map(|round| round.threads).max().unwrap_or_default();
        let values = [
            ("n", self.connections(connections)),
            ("threads", self.number(count as f64)),
            ("a", kb(threads)),
            ("b", kb(reactor)),
        ];
        self.add(Topic::Memory, Label::NoteMemory, &values);
    }

    fn switches(&mut self, connections: usize) {
        let Some((threads, reactor)) = self.both(Scene::Steady, connections) else { return };
        let [a, b] = [threads, reactor].map(|point| point.spread(|sample| sample.switches));
        if order(&b, &a) != Order::Below {
            return;
        }
        let values = [
            ("n", self.connections(connections)),
            ("a", self.number(a.middle)),
            ("b", self.number(b.middle)),
        ];
        self.add(Topic::Switches, Label::NoteSwitches, &values);
    }

    fn calls(&mut self) {
        let of = |server: &str| {
            let mut found: Vec<_> =
                self.run.calls.iter().filter(|calls| calls.server == server).collect();
            found.sort_by_key(|calls| calls.connections);
            found.first().copied().zip(found.last().copied())
        };
        let (Some((few, many)), Some((_, threads))) = (of("reactor"), of("threads")) else {
            return;
        };
        if few.per_request() <= many.per_request() {
            return;
        }
        let values = [
            ("m", self.connections(few.connections)),
            ("n", self.connections(many.connections)),
            ("a", self.number(few.per_request())),
            ("b", self.number(many.per_request())),
            ("c", self.number(threads.per_request())),
        ];
        self.add(Topic::Switches, Label::NoteCalls, &values);
    }

    fn slow(&mut self) {
        let p90 = |server: &str, open| {
            self.scene(Scene::Slow, server, open).map(|point| point.spread(|s| s.p90).middle)
        };
        let (threads, reactor) = (p90("threads", true), p90("reactor", true));
        let (offload, closed) = (p90("offload", true), p90("reactor", false));
        let (Some(a), Some(b)) = (threads, reactor) else { return };
        if b > a {
            let values = [("a", self.time(a)), ("b", self.time(b))];
            self.add(Topic::Slow, Label::NoteSlow, &values);
        }
        if let Some(c) = offload.filter(|&c| c < b) {
            self.add(Topic::Slow, Label::NoteOffload, &[("c", self.time(c))]);
        }
        if let Some(closed) = closed.filter(|&closed| closed < b) {
            let values = [("closed", self.time(closed)), ("open", self.time(b))];
            self.add(Topic::Curve, Label::NoteOmission, &values);
        }
    }

    fn waiting(&mut self) {
        let counts = &self.run.plan.connections;
        let all_at = |&n: &usize| {
            let rate = |server| {
                let point = self.run.point(Scene::Waiting, server, n)?;
                Some(point.spread(|sample| sample.per_s).middle)
            };
            Some((n, rate("threads")?, rate("reactor")?, rate("timer")?))
        };
        let Some((n, a, b, c)) = counts.iter().rev().find_map(all_at) else { return };
        let values = [
            ("n", self.connections(n)),
            ("a", self.number(a)),
            ("b", self.number(b)),
            ("c", self.number(c)),
        ];
        self.add(Topic::Waiting, Label::NoteWaiting, &values);
    }

    fn queues(&mut self) {
        for queue in &self.run.queues {
            let most = queue.samples.iter().map(|&(_, bytes)| bytes).max().unwrap_or_default();
            if most == 0 {
                continue;
            }
            let each = most as f64 / queue.readers.max(1) as f64;
            let values = [
                ("server", server(&queue.server, self.lang).to_owned()),
                ("bytes", bytes(each, self.lang)),
                ("mark", bytes(queue.high_mark as f64, self.lang)),
            ];
            self.add(Topic::Queue, Label::NoteQueue, &values);
        }
    }

    fn idle(&mut self) {
        let point = |server| self.scene(Scene::Idle, server, false);
        let Some((threads, reactor)) = point("threads").zip(point("reactor")) else { return };
        let p50 = |point: &Point| self.time(point.spread(|sample| sample.p50).middle);
        let n = self.connections(threads.connections);
        let values = [("n", n), ("a", p50(threads)), ("b", p50(reactor))];
        self.add(Topic::Beside, Label::NoteIdle, &values);
    }

    fn beside(&mut self) {
        let point = |server| self.scene(Scene::Beside, server, true);
        let Some((threads, reactor)) = point("threads").zip(point("reactor")) else { return };
        let p99 = |point: &Point| self.time(point.spread(|sample| sample.p99).middle);
        let values = [("a", p99(threads)), ("b", p99(reactor))];
        self.add(Topic::Beside, Label::NoteBeside, &values);
    }

    fn python(&mut self, connections: usize) {
        let cpu = |server| {
            let point = self.run.point(Scene::Steady, server, connections)?;
            Some(point.spread(|sample| sample.cpu_us).middle)
        };
        let all = (cpu("py-threads"), cpu("py-asyncio"), cpu("reactor"));
        let (Some(a), Some(b), Some(c)) = all else { return };
        if a <= c || b <= c {
            return;
        }
        let values = [
            ("n", self.connections(connections)),
            ("a", self.time(a)),
            ("b", self.time(b)),
            ("c", self.time(c)),
        ];
        self.add(Topic::Python, Label::NotePython, &values);
    }

    fn busy(&mut self) {
        let machine = &self.run.machine;
        if machine.others_cores >= OTHERS_CORES {
            let cores = self.number(machine.others_cores);
            let values = [("cores", cores), ("all", machine.cores.to_string())];
            self.add(Topic::Load, Label::NoteBusy, &values);
        }
    }

    fn late(&mut self) {
        let open = self.run.points.iter().filter(|point| point.rate.is_some());
        let late = open.map(|point| point.spread(|sample: &Sample| sample.load_late).middle);
        let late = late.fold(0.0, f64::max);
        if late >= LATE_US {
            self.add(Topic::Load, Label::NoteLate, &[("late", self.time(late))]);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Below,
    Same,
    Above,
}

/// Whether `a` lies below `b`: by more than the rounds of each differ, and by 3 % at least.
fn order(a: &Spread, b: &Spread) -> Order {
    let near = (a.middle - b.middle).abs() < 0.03 * a.middle.max(b.middle);
    match (near || !a.apart(b), a.middle < b.middle) {
        (true, _) => Order::Same,
        (false, true) => Order::Below,
        (false, false) => Order::Above,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Plan;

    fn point(scene: Scene, server: &str, connections: usize, samples: &[Sample]) -> Point {
        let server = server.to_owned();
        Point { scene, server, connections, rate: None, rounds: samples.to_vec() }
    }

    fn run(points: Vec<Point>) -> Run {
        let plan = Plan { connections: vec![1, 1000], ..Plan::default() };
        Run { plan, points, ..Run::default() }
    }

    fn texts(run: &Run) -> Vec<String> {
        notes(run, Lang::En).into_iter().map(|note| note.text).collect()
    }

    fn median(p50: f64) -> Sample {
        Sample { p50, ..Sample::default() }
    }

    #[test]
    fn threads_may_win_the_median_and_it_is_said() {
        let of = |threads: &[f64], reactor: &[f64]| {
            let samples = |medians: &[f64]| medians.iter().map(|&m| median(m)).collect::<Vec<_>>();
            let threads = point(Scene::Steady, "threads", 1, &samples(threads));
            let reactor = point(Scene::Steady, "reactor", 1, &samples(reactor));
            texts(&run(vec![threads, reactor])).remove(0)
        };
        let threads = of(&[7.0, 8.0], &[9.0, 10.0]);
        assert!(threads.contains("threads win the median: 7.5 µs against 9.5 µs"), "{threads}");
        let reactor = of(&[9.0, 10.0], &[7.0, 8.0]);
        assert!(
            reactor.contains("the reactor wins the median: 7.5 µs against 9.5 µs"),
            "{reactor}"
        );
        // Ranges that overlap, or that lie closer than a few per cent, decide nothing.
        for (threads, reactor) in [(&[7.0, 9.5], &[9.0, 10.0]), (&[9.0, 9.1], &[9.2, 9.3])] {
            let same = of(threads, reactor);
            assert!(same.contains("differ by no more than the rounds do"), "{same}");
        }
    }

    #[test]
    fn clients_that_one_at_a_time_left_out_are_counted() {
        let sample = Sample { served: 1, asking: 1000, ..Sample::default() };
        let serial = point(Scene::Steady, "serial", 1000, std::slice::from_ref(&sample));
        let said = texts(&run(vec![serial])).remove(0);
        assert!(said.starts_with("One at a time served 1 of 1,000 clients"), "{said}");
        let all = Sample { served: 1000, ..sample };
        assert!(texts(&run(vec![point(Scene::Steady, "serial", 1000, &[all])])).is_empty());
    }

    #[test]
    fn off_loading_is_praised_only_where_it_repairs() {
        let slow = |server: &str, p90| Point {
            rate: Some(500.0),
            ..point(Scene::Slow, server, 10, &[Sample { p90, ..Sample::default() }])
        };
        let good =
            run(vec![slow("threads", 90.0), slow("reactor", 40_000.0), slow("offload", 95.0)]);
        let said = texts(&good);
        assert!(
            said[0].contains("moves the p90 of the reactor to 40 ms, and that of threads to 90")
        );
        assert!(said[1].starts_with("Off-loading repairs it: a p90 of 95 µs"), "{said:?}");
        let bad = run(vec![slow("threads", 90.0), slow("reactor", 80.0), slow("offload", 95.0)]);
        assert_eq!(texts(&bad), [""; 0]);
    }

    #[test]
    fn a_load_that_was_late_is_confessed() {
        let sample = Sample { load_late: 2500.0, ..Sample::default() };
        let open = Point { rate: Some(1.0), ..point(Scene::Loops, "reactor", 1, &[sample]) };
        assert!(texts(&run(vec![open]))[0].contains("1 request in 100 left 2.5 ms or more"));
    }

    #[test]
    fn other_programs_that_keep_cores_busy_are_named() {
        let mut run = run(Vec::new());
        run.machine.cores = 2;
        run.machine.others_cores = OTHERS_CORES;
        assert!(texts(&run)[0].starts_with("Other programs kept 0.15 of the 2 cores busy"));
        run.machine.others_cores = OTHERS_CORES - 0.01;
        assert_eq!(texts(&run), [""; 0]);
    }

    #[test]
    fn what_is_left_out_is_named_in_both_languages() {
        let mut run = run(Vec::new());
        run.machine.files_max = 1024;
        let kinds = [Left::Python, Left::PythonHttp, Left::Strace, Left::Files, Left::Failed];
        run.left_out =
            kinds.map(|what| LeftOut { what, detail: "5000".to_owned() }).into_iter().collect();
        for lang in [Lang::En, Lang::Es] {
            let said = left_out(&run, lang);
            assert_eq!(said.len(), 5);
            assert!(said[3].contains("5000") && said[3].contains("1024"), "{said:?}");
            assert!(said.iter().all(|sentence| !sentence.contains('{')), "{said:?}");
        }
    }
}
