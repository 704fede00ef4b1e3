//! The loads of a run, in the order in which they are measured.

use crate::load::Special;
use crate::run::{Plan, Scene};

/// One measurement of one server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) scene: Scene,
    pub(crate) server: &'static str,
    /// All connections that are measured, with the idle ones.
    pub(crate) connections: usize,
    pub(crate) idle: usize,
    pub(crate) rate: Rate,
    pub(crate) special: Option<Special>,
    pub(crate) flooders: usize,
    pub(crate) slow_readers: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_ms: u64,
    pub(crate) heat: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    Closed,
    /// Requests per second.
    Open(f64),
    /// A share of the closed-loop throughput of the slowest server at as many connections.
    ShareOfSlowest(f64),
}

/// The slow handler: 50 ms in 1 of 100 requests.
pub(crate) const SLOW_MICROS: u64 = 50_000;
pub(crate) const SLOW_ONE_IN: u64 = 100;
pub(crate) const SLOW_CONNECTIONS: usize = 10;
/// A quarter of the reactor's time then goes into slow callbacks.
pub(crate) const SLOW_RATE: f64 = 500.0;
/// What each request of `waiting` waits.
pub(crate) const WAIT_MICROS: u64 = 5_000;
pub(crate) const READERS: usize = 4;
pub(crate) const FLOODERS: usize = 16;
/// Of a reactor that sleeps in its callback.
const SLEEPER_CONNECTIONS: usize = 100;
/// Active connections beside idle ones.
const ACTIVE: usize = 10;

impl Job {
    fn new(scene: Scene, server: &'static str, connections: usize, plan: &Plan) -> Job {
        Job {
            scene,
            server,
            connections,
            idle: 0,
            rate: Rate::Closed,
            special: None,
            flooders: 0,
            slow_readers: 0,
            seconds: plan.seconds,
            warm_ms: (plan.seconds * 100.0) as u64,
            heat: false,
        }
    }
}

/// Whether one client does not have to wait for another to leave.
pub(crate) fn is_concurrent(server: &str) -> bool {
    server != "serial"
}

/// `offload` and `timer` are the reactor with another way to wait: they take part where there is
/// something to wait for.
fn is_plain(server: &str) -> bool {
    !matches!(server, "offload" | "timer")
}

/// All measurements of `plan`, but those of [`Scene::Trace`].
pub(crate) fn jobs(plan: &Plan, servers: &[&'static str]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for &scene in &plan.scenes {
        let more = match scene {
            Scene::Steady => steady(plan, servers),
            Scene::Loops => loops(plan, servers),
            Scene::Slow => slow(plan, servers),
            Scene::Waiting => waiting(plan, servers),
            Scene::Readers => readers(plan, servers),
            Scene::Idle => idle(plan, servers),
            Scene::Beside => beside(plan, servers),
            Scene::Trace => Vec::new(),
        };
        jobs.extend(more);
    }
    jobs
}

/// Servers take turns within a round, so that a change of the machine meets all of them.
fn steady(plan: &Plan, servers: &[&'static str]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for &connections in &plan.connections {
        for _ in 0..plan.rounds {
            for &server in servers.iter().filter(|server| is_plain(server)) {
                let idle = (connections * plan.idle_percent / 100).min(connections - 1);
                let job = Job::new(Scene::Steady, server, connections, plan);
                jobs.push(Job { idle, ..job });
            }
        }
    }
    jobs
}

/// The number of connections at which curves are compared: 100, or the next lower one.
pub(crate) fn middle_connections(plan: &Plan) -> usize {
    let at_most = plan.connections.iter().rfind(|&&count| count <= 100);
    at_most.or(plan.connections.first()).copied().unwrap_or(1)
}

/// Rounds of a scenario: once by default, three times in a thorough run.
fn rounds(plan: &Plan) -> usize {
    if plan.rounds >= 5 { 3 } else { 1 }
}

fn for_each(
    plan: &Plan,
    servers: &[&'static str],
    takes_part: impl Fn(&str) -> bool,
    job: impl Fn(&'static str) -> Job,
) -> Vec<Job> {
    let mut jobs = Vec::new();
    for _ in 0..rounds(plan) {
        jobs.extend(servers.iter().filter(|s| takes_part(s)).map(|server| job(server)));
    }
    jobs
}

fn loops(plan: &Plan, servers: &[&'static str]) -> Vec<Job> {
    let takes_part = |server: &str| is_concurrent(server) && is_plain(server);
    for_each(plan, servers, takes_part, |server| {
        let job = Job::new(Scene::Loops, server, middle_connections(plan), plan);
        Job { rate: Rate::ShareOfSlowest(0.6), ..job }
    })
}

fn slow(plan: &Plan, servers: &[&'static str]) -> Vec<Job> {
    let special = Special { verb: "wait".to_owned(), micros: SLOW_MICROS, one_in: SLOW_ONE_IN };
    let takes_part = |server: &str| is_concurrent(server) && server != "timer";
    let job = |server, rate, seconds| Job {
        rate,
        special: Some(special.clone()),
        seconds,
        warm_ms: 0,
        heat: true,
        ..Job::new(Scene::Slow, server, SLOW_CONNECTIONS, plan)
    };
    // An open loop needs some hundred requests.
    let open_seconds = (plan.seconds * 1.6).max(0.4);
    let open = |server| job(server, Rate::Open(SLOW_RATE), open_seconds);
    let mut jobs = for_each(plan, servers, takes_part, open);
    let closed = |server| job(server, Rate::Closed, plan.seconds);
    jobs.extend(for_each(plan, servers, |s| matches!(s, "threads" | "reactor"), closed));
    jobs
}

fn waiting(plan: &Plan, servers: &[&'static str]) -> Vec<Job> {
    let special = Special { verb: "wait".to_owned(), micros: WAIT_MICROS, one_in: 1 };
    let takes_part = |server: &str| matches!(server, "threads" | "reactor" | "timer");
    let mut jobs = Vec::new();
    for &connections in plan.connections.iter().filter(|&&count| count <= 1000) {
        // More connections cannot help one thread that sleeps, and its last answers take long.
        let takes_part = |server: &str| {
            takes_part(server) && (server != "reactor" || connections <= SLEEPER_CONNECTIONS)
        };
        jobs.extend(for_each(plan, servers, takes_part, |server| Job {
            special: Some(special.clone()),
            seconds: (plan.seconds * 0.6).max(0.1),
            warm_ms: 0,
            ..Job::new(Scene::Waiting, server, connections, plan)
        }));
    }
    jobs
}

fn readers(plan: &Plan, servers: &[&'static str]) -> Vec<Job> {
    let takes_part = |server: &str| is_concurrent(server) && is_plain(server);
    for_each(plan, servers, takes_part, |server| Job {
        rate: Rate::Open(1000.0),
        slow_readers: READERS,
        seconds: plan.seconds * 1.5,
        ..Job::new(Scene::Readers, server, 20, plan)
    })
}

fn idle(plan: &Plan, servers: &[&'static str]) -> Vec<Job> {
    let most = plan.connections.last().copied().unwrap_or(1).max(2 * ACTIVE);
    let takes_part = |server: &str| is_concurrent(server) && is_plain(server);
    for_each(plan, servers, takes_part, |server| Job {
        idle: most - ACTIVE,
        ..Job::new(Scene::Idle, server, most, plan)
    })
}

fn beside(plan: &Plan, servers: &[&'static str]) -> Vec<Job> {
    let takes_part = |server: &str| is_concurrent(server) && is_plain(server);
    for_each(plan, servers, takes_part, |server| Job {
        rate: Rate::Open(400.0),
        flooders: FLOODERS,
        ..Job::new(Scene::Beside, server, 1, plan)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::SERVERS;

    fn plan() -> Plan {
        Plan {
            connections: vec![1, 100, 1000],
            rounds: 3,
            seconds: 0.5,
            scenes: Scene::ALL.to_vec(),
            idle_percent: 90,
            ..Plan::default()
        }
    }

    #[test]
    fn servers_take_turns_within_a_round() {
        let jobs = steady(&plan(), &["serial", "threads", "reactor", "timer"]);
        let first: Vec<_> = jobs[..6].iter().map(|job| job.server).collect();
        assert_eq!(first, ["serial", "threads", "reactor", "serial", "threads", "reactor"]);
        assert_eq!(jobs.len(), 27);
    }

    /// Server, connections, idle, rate, flooders and slow readers of each job of a scene.
    fn loads(scene: Scene) -> Vec<(&'static str, usize, usize, Rate, usize, usize)> {
        let plan = Plan { idle_percent: 0, ..plan() };
        let jobs = jobs(&plan, &SERVERS).into_iter().filter(|job| job.scene == scene);
        jobs.map(|j| (j.server, j.connections, j.idle, j.rate, j.flooders, j.slow_readers))
            .collect()
    }

    #[test]
    fn each_scene_has_the_servers_and_the_load_that_its_title_says() {
        let four = ["threads", "reactor", "py-threads", "py-asyncio"];
        let each = |load: (usize, usize, Rate, usize, usize)| {
            let (connections, idle, rate, flooders, readers) = load;
            four.map(|server| (server, connections, idle, rate, flooders, readers))
        };
        let share = Rate::ShareOfSlowest(0.6);
        assert_eq!(loads(Scene::Loops), each((100, 0, share, 0, 0)));
        assert_eq!(loads(Scene::Readers), each((20, 0, Rate::Open(1000.0), 0, 4)));
        assert_eq!(loads(Scene::Idle), each((1000, 990, Rate::Closed, 0, 0)));
        assert_eq!(loads(Scene::Beside), each((1, 0, Rate::Open(400.0), 16, 0)));
        let slow = |server, rate| (server, 10, 0, rate, 0, 0);
        let five = ["threads", "reactor", "offload", "py-threads", "py-asyncio"];
        let mut expected = five.map(|server| slow(server, Rate::Open(500.0))).to_vec();
        expected.extend(["threads", "reactor"].map(|server| slow(server, Rate::Closed)));
        assert_eq!(loads(Scene::Slow), expected);
        let steady: Vec<_> = loads(Scene::Steady).iter().map(|load| (load.0, load.1)).collect();
        for server in ["serial", "threads", "reactor", "py-threads", "py-asyncio"] {
            for connections in [1, 100, 1000] {
                let rounds = steady.iter().filter(|load| **load == (server, connections));
                assert_eq!(rounds.count(), 3, "{server}, {connections}");
            }
        }
    }

    #[test]
    fn where_few_connections_are_asked_for_some_are_idle_all_the_same() {
        let few = idle(&Plan { connections: vec![1], ..plan() }, &["reactor"]);
        assert_eq!((few[0].connections, few[0].idle), (20, 10));
    }

    #[test]
    fn the_slow_handler_is_50_ms_in_one_of_100_and_the_waits_are_5_ms_each() {
        let jobs = jobs(&plan(), &SERVERS);
        for job in jobs {
            let special = job.special.map(|s| (s.verb, s.micros, s.one_in));
            let wait = |micros, one_in| Some(("wait".to_owned(), micros, one_in));
            match job.scene {
                Scene::Slow => assert_eq!(special, wait(50_000, 100)),
                Scene::Waiting => assert_eq!(special, wait(5_000, 1)),
                scene => assert_eq!(special, None, "{scene:?}"),
            }
            assert_eq!(job.heat, job.scene == Scene::Slow);
        }
    }

    #[test]
    fn one_connection_at_least_is_not_idle() {
        let jobs = steady(&plan(), &["reactor"]);
        let idle = |count| jobs.iter().find(|job| job.connections == count).map(|job| job.idle);
        assert_eq!([idle(1), idle(100), idle(1000)], [Some(0), Some(90), Some(900)]);
        let jobs = steady(&Plan { idle_percent: 100, ..plan() }, &["reactor"]);
        let idle = |count| jobs.iter().find(|job| job.connections == count).map(|job| job.idle);
        assert_eq!([idle(1), idle(100), idle(1000)], [Some(0), Some(99), Some(999)]);
    }

    #[test]
    fn one_client_at_a_time_takes_part_in_the_steady_load_only() {
        let jobs = jobs(&plan(), &SERVERS);
        let serial = jobs.iter().filter(|job| job.server == "serial");
        assert!(serial.clone().count() > 0);
        assert!(serial.clone().all(|job| job.scene == Scene::Steady));
        for scene in Scene::ALL.into_iter().filter(|&scene| scene != Scene::Trace) {
            assert!(jobs.iter().any(|job| job.scene == scene), "{scene:?}");
        }
    }

    #[test]
    fn curves_are_compared_at_a_hundred_connections_or_fewer() {
        assert_eq!(middle_connections(&plan()), 100);
        assert_eq!(middle_connections(&Plan { connections: vec![300], ..plan() }), 300);
        assert_eq!(middle_connections(&Plan { connections: vec![1, 10], ..plan() }), 10);
    }
}
