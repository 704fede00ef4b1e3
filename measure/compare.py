#!/usr/bin/env python3
"""compare.py   the server's CPU time per message: lariat, bare mio, tokio, side by side

  compare.py                                   everything; about seven minutes
  compare.py --threads                         the blocking driver beside plain threads; a minute
  compare.py --scenarios c64,bulk --rounds 3
  compare.py --server other='PROGRAM {port}'   one more server; may be given again
  compare.py --skip lariat                     without it

Server on core 0, load generator on core 1. In every round every scenario is run once with every
server, each time with a fresh process, in shuffled order, so noise hits all alike. For each scenario
it prints CPU microseconds of the server (user and system) per message, the best and the median over
the rounds, and both as a ratio to bare mio's.

The control is bare mio's own binary a second time. Its ratio is what chance does on this machine: a
difference that is not clearly larger than the control's means nothing. "others" is the highest share
of a core that the rest of the machine used during a run of that row; above 10 % a row is better
measured again on a quiet machine. "busy" is the server's share of its core.

With --threads the baseline is plain threads, with the stack and the pool of read buffers that lariat's
threads have, and the control is lariat a second time.
"""
import argparse
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BIN = f"{HERE}/target/release"
LOAD = f"{BIN}/load"

SERVERS = {
    "bare mio": f"{BIN}/bare_mio {{port}}",
    "control": f"{BIN}/bare_mio {{port}}",
    "lariat": f"{ROOT}/target/release/examples/echo_reactor --addr 127.0.0.1:{{port}} -q",
    "tokio": f"{BIN}/tokio_ct {{port}}",
}
BLOCKING = f"{ROOT}/target/release/examples/echo_blocking --addr 127.0.0.1:{{port}} -q"
THREADS = {
    "plain threads": f"{BIN}/std_threads --pool {{port}}",
    "lariat": BLOCKING,
    "control": BLOCKING,
}
BASELINE = {False: "bare mio", True: "plain threads"}

# name: (what it is, connections, message size, pipeline)
SCENARIOS = {
    "c1": ("1 connection, 64 B", 1, 64, 1),
    "c64": ("64 connections, 64 B", 64, 64, 1),
    "c1000": ("1,000 connections, 64 B", 1000, 64, 1),
    "c8000": ("8,000 connections, 64 B", 8000, 64, 1),
    "c64-16k": ("64 connections, 16 KiB", 64, 16 << 10, 1),
    "bulk": ("1 connection, 1 MiB", 1, 1 << 20, 1),
    "c64-p16": ("64 connections, 64 B, pipelined 16 deep", 64, 64, 16),
    "life": ("a connection's life, one at a time: connect, 64 B, reset", 1, 64, 1),
}
# What the load generator is to do, where that is not an echo.
MODES = {"life": "lives"}


class Failed(Exception):
    pass


def build(*args):
    done = subprocess.run(["cargo", "build", "--release", *args], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"this did not build: {' '.join(args)}\n{done.stderr[-2000:]}")


def listening(port):
    """From the kernel's table: a connection made to find out would be work for the server."""
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}") as table:
            for line in list(table)[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[1].endswith(f":{port:04X}"):
                    return True
    return False


class Server:
    """A fresh process on the server's core; ended when the block is left."""

    def __init__(self, name, command):
        self.name, self.command = name, command

    def __enter__(self):
        self.port = int(subprocess.check_output([LOAD, "free-port"], timeout=5))
        self.log = tempfile.TemporaryFile(mode="w+")
        words = self.command.replace("{port}", str(self.port)).split()
        self.process = subprocess.Popen(
            ["taskset", "-c", "0", *words],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until = time.monotonic() + 10
        while not listening(self.port):
            if self.process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise Failed(f"{self.name} does not listen: {self.command}\n{self.last_words}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.seek(0)
        self.last_words = self.log.read()[-500:]
        self.log.close()


def busy():
    """Seconds that all cores together have not been idle."""
    with open("/proc/stat") as stat:
        user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def run(name, command, scenario, seconds):
    _, connections, size, pipeline = SCENARIOS[scenario]
    with Server(name, command) as server:
        before, begun = busy(), time.monotonic()
        cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            ["taskset", "-c", "1", LOAD, MODES.get(scenario, "echo"), "--addr", f"127.0.0.1:{server.port}",
             "--connections", str(connections), "--size", str(size), "--pipeline", str(pipeline),
             "--seconds", str(seconds), "--pid", str(server.process.pid), "--limit", str(seconds + 30)],
            capture_output=True, text=True, timeout=seconds + 40)
        all_busy, wall = busy() - before, time.monotonic() - begun
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        served = total_cpu(server.process.pid)
    if done.returncode:
        raise Failed(f"{scenario} with {name}: {done.stderr.strip()}\n{server.last_words}")
    result = json.loads(done.stdout)
    mine = own.ru_utime + own.ru_stime - cpu.ru_utime - cpu.ru_stime
    return {
        "us": result["server_cpu_us_per_message"],
        "busy": result["server_cpu_s"] / result["seconds"],
        "others": max(0.0, all_busy - mine - served) / wall,
    }


def total_cpu(pid):
    """Seconds of CPU of a process since it started; ours has served nothing but this run."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def table(scenario, results, baseline):
    print(f"\n{scenario}: {SCENARIOS[scenario][0]}")
    print(f"  {'server':<12} {'best us':>9} {'median us':>10} {'best':>7} {'median':>7}"
          f" {'busy':>6} {'others':>7}")
    best = {name: min(r["us"] for r in runs) for name, runs in results.items()}
    median = {name: statistics.median(r["us"] for r in runs) for name, runs in results.items()}
    for name, runs in results.items():
        print(f"  {name:<12} {best[name]:9.2f} {median[name]:10.2f}"
              f" {best[name] / best[baseline]:7.2f} {median[name] / median[baseline]:7.2f}"
              f" {statistics.median(r['busy'] for r in runs):6.2f}"
              f" {100 * max(r['others'] for r in runs):5.0f} %", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--skip", default="", metavar="NAME,NAME")
    parser.add_argument("--threads", action="store_true")
    parser.add_argument("--scenarios", metavar="NAME,NAME")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    every = ["life", "c64", "c1"] if args.threads else list(SCENARIOS)
    scenarios = args.scenarios.split(",") if args.scenarios else every
    for name in scenarios:
        if name not in SCENARIOS:
            parser.error(f"no scenario {name}; there are {', '.join(SCENARIOS)}")
    known, baseline = THREADS if args.threads else SERVERS, BASELINE[args.threads]
    servers = {name: cmd for name, cmd in known.items() if name not in args.skip.split(",")}
    for given in args.server:
        name, _, command = given.partition("=")
        if "{port}" not in command:
            parser.error(f"--server {given}: NAME=COMMAND with {{port}} in it")
        servers[name] = command
    if baseline not in servers:
        parser.error(f"{baseline} is what all others are compared with")
    if len(os.sched_getaffinity(0)) < 2:
        raise Failed("this needs two cores")

    build("--manifest-path", f"{HERE}/Cargo.toml", "--target-dir", f"{HERE}/target")
    if "lariat" in servers:
        build("--manifest-path", f"{ROOT}/Cargo.toml", "--target-dir", f"{ROOT}/target",
              "--example", "echo_blocking" if args.threads else "echo_reactor")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    results = {scenario: {name: [] for name in servers} for scenario in scenarios}
    for number in range(args.rounds):
        for scenario in scenarios:
            for name in random.sample(list(servers), len(servers)):
                results[scenario][name].append(run(name, servers[name], scenario, args.seconds))
        print(f"round {number + 1} of {args.rounds} done", file=sys.stderr, flush=True)
    print(f"server CPU per message, {args.rounds} rounds of {args.seconds} s; ratios to {baseline}")
    for scenario in scenarios:
        table(scenario, results[scenario], baseline)


if __name__ == "__main__":
    # A signal unwinds like an error, so that the server under way is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except Failed as e:
        sys.exit(f"compare.py: {e}")
    except subprocess.TimeoutExpired as e:
        sys.exit(f"compare.py: a run did not end in time: {e}")
    except KeyboardInterrupt:
        sys.exit(130)
