//! What `/proc` says of a process and of the machine.

use std::fs;
use std::io;

use crate::run::Machine;

/// CPU time, context switches, memory and threads of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_ns: u64,
    pub(crate) switches: u64,
    pub(crate) resident: u64,
    pub(crate) virtual_size: u64,
    pub(crate) threads: u64,
}

impl Usage {
    /// Sums over all threads: the files of the process count its first one only.
    pub(crate) fn read(pid: u32) -> io::Result<Usage> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mut usage = Usage {
            resident: field(&status, "VmRSS:") * 1024,
            virtual_size: field(&status, "VmSize:") * 1024,
            threads: field(&status, "Threads:"),
            ..Usage::default()
        };
        let mut exact = true;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            // A thread may end between the listing and the reading.
            let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
            usage.switches += field(&status, "voluntary_ctxt_switches:")
                + field(&status, "nonvoluntary_ctxt_switches:");
            let schedstat = fs::read_to_string(path.join("schedstat")).ok();
            let on_cpu = schedstat.and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
            exact &= on_cpu.is_some();
            usage.cpu_ns += on_cpu.unwrap_or_default();
        }
        if !exact {
            usage.cpu_ns = ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?) * TICK_NS;
        }
        Ok(usage)
    }
}

/// The unit in which the kernel tells times to programs, on every usual architecture.
const TICK_NS: u64 = 10_000_000;

/// User and system time in a line of `stat`. The name of the program may have spaces.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// CPU time of the whole machine, and the part of this process and of its children that have ended,
/// both in ticks.
pub(crate) fn machine_ticks() -> (u64, u64) {
    let read = |name: &str| fs::read_to_string(name).unwrap_or_default();
    (busy(&read("/proc/stat")), family(&read("/proc/self/stat")))
}

/// Of the line of all cores: user, nice, system, interrupts, and what the host has taken.
fn busy(stat: &str) -> u64 {
    let rest = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let fields: Vec<u64> = rest.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|&at| fields.get(at)).sum()
}

fn family(stat: &str) -> u64 {
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(4).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

/// The number behind `name` at the beginning of a line.
fn field(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    rest.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// The soft and the hard limit of open files of this process.
pub(crate) fn files_limits() -> (u64, u64) {
    limits(&fs::read_to_string("/proc/self/limits").unwrap_or_default())
}

fn limits(text: &str) -> (u64, u64) {
    let rest = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut words = rest.unwrap_or_default().split_whitespace();
    let mut next = || match words.next() {
        Some("unlimited") => u64::MAX,
        word => word.and_then(|word| word.parse().ok()).unwrap_or(1024),
    };
    (next(), next())
}

pub(crate) fn machine() -> Machine {
    let read = |name: &str| fs::read_to_string(name).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = read("/proc/sys/kernel/osrelease");
    Machine {
        cpu: model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, m)| m.to_owned()),
        cores: std::thread::available_parallelism().map_or(1, Into::into),
        memory_mib: field(&read("/proc/meminfo"), "MemTotal:") / 1024,
        system: format!("Linux {}", kernel.trim()),
        ..Machine::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_memory_and_threads() {
        let usage = Usage::read(std::process::id()).unwrap();
        assert!(usage.resident > 1 << 20 && usage.virtual_size > usage.resident, "{usage:?}");
        assert!(usage.threads >= 1);
        assert!(Usage::read(u32::MAX).is_err());
    }

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_move_the_fields_of_stat() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0";
        assert_eq!(ticks(stat), 42);
    }

    #[test]
    fn idle_cores_are_not_busy_and_children_count_as_family() {
        assert_eq!(busy("cpu  1 2 4 1000 1000 8 16 32 64 64\ncpu0 9\n"), 63);
        assert_eq!(busy(""), 0);
        assert_eq!(family("7 (x) S 1 2 3 4 5 6 7 8 9 10 30 12 5 3 20 0"), 50);
        let (all, own) = machine_ticks();
        assert!(all >= own, "{all} {own}");
    }

    #[test]
    fn limits_may_be_unlimited() {
        let text = "Limit  Soft Hard Units\nMax open files            1024   unlimited  files\n";
        assert_eq!(limits(text), (1024, u64::MAX));
        assert_eq!(limits(""), (1024, 1024));
    }
}
