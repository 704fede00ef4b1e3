#!/usr/bin/env python3
"""relay.py   the example `proxy` beside a relay written by hand on epoll

  relay.py                              CPU time and system calls; about three minutes
  relay.py --rounds 3 --scenarios bulk
  relay.py --skip-calls                 without strace

The relay is on core 0; the load generator and the server that echoes (`bare_mio`) are on core 1. In
every round every scenario is run once with every relay, each time with a fresh process, in shuffled
order. Printed are CPU microseconds of the relay (user and system) per message, which passes the relay
twice, the best and the median over the rounds, and both as a ratio to the relay written by hand. The
control is that relay's own binary a second time. For the bulk the same cost is given per byte
relayed.

Then, under strace, the system calls of a relay per message at 64 connections and at 1, as the difference of
two runs with exact counts: a message is read and written once on its way there and once on its way
back.
"""
import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time

import compare
from compare import BIN, HERE, LOAD, ROOT, Failed, Server

PROXY = f"{ROOT}/target/release/examples/proxy"
RELAYS = {
    "by hand": f"{BIN}/epoll_relay {{port}} 127.0.0.1:{{target}}",
    "control": f"{BIN}/epoll_relay {{port}} 127.0.0.1:{{target}}",
    "proxy": f"{PROXY} -q 127.0.0.1:{{port}} 127.0.0.1:{{target}}",
}
SCENARIOS = ["c1", "c64", "c64-16k", "bulk"]


class Echo:
    """The server behind the relays, on the load generator's core."""

    def __enter__(self):
        self.port = int(subprocess.check_output([LOAD, "free-port"], timeout=5))
        self.process = subprocess.Popen(["taskset", "-c", "1", f"{BIN}/bare_mio", str(self.port)])
        until = time.monotonic() + 10
        while not compare.listening(self.port):
            if time.monotonic() > until:
                self.__exit__()
                raise Failed("the server behind the relays does not listen")
            time.sleep(0.02)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def calls(name, command, connections, messages):
    """The system calls of one run by their names."""
    with tempfile.NamedTemporaryFile(mode="r") as out:
        with Server(name, f"strace -c -f -o {out.name} {command}") as server:
            done = subprocess.run(
                ["taskset", "-c", "1", LOAD, "echo", "--addr", f"127.0.0.1:{server.port}",
                 "--connections", str(connections), "--size", "64", "--messages", str(messages),
                 "--limit", "120"], capture_output=True, text=True, timeout=130)
            time.sleep(0.5)
            with open(f"/proc/{server.process.pid}/task/{server.process.pid}/children") as children:
                child = int(children.read().split()[0])
            os.kill(child, 15)
            server.process.wait(10)
        if done.returncode:
            raise Failed(f"{name} under strace: {done.stderr.strip()}")
        counts = {}
        for line in out.read().splitlines():
            found = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
            if found and found[2] != "total":
                counts[found[2]] = int(found[1])
        return counts


def print_calls(name, command, connections):
    few, many = (calls(name, command, connections, count) for count in (4000, 24000))
    per = {call: (many.get(call, 0) - few.get(call, 0)) / 20000 for call in {*few, *many}}
    parts = ", ".join(f"{call} {count:.2f}" for call, count in sorted(per.items()) if abs(count) >= 0.005)
    print(f"  {name:<9} {connections:>4} connections {sum(per.values()):6.2f}  ({parts})", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), metavar="NAME,NAME")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--skip-calls", action="store_true")
    args = parser.parse_args()
    scenarios = args.scenarios.split(",")
    if len(os.sched_getaffinity(0)) < 2:
        raise Failed("this needs two cores")
    own = ["--manifest-path", f"{HERE}/Cargo.toml", "--target-dir", f"{HERE}/target"]
    compare.build(*own, "-p", "load")
    compare.build(*own, "-p", "peers", "--bin", "epoll_relay", "--bin", "bare_mio")
    compare.build("--manifest-path", f"{ROOT}/Cargo.toml", "--target-dir", f"{ROOT}/target",
                  "--example", "proxy")
    with Echo() as echo:
        relays = {name: command.replace("{target}", str(echo.port))
                  for name, command in RELAYS.items()}
        results = {scenario: {name: [] for name in relays} for scenario in scenarios}
        for number in range(args.rounds):
            for scenario in scenarios:
                for name in random.sample(list(relays), len(relays)):
                    run = compare.run(name, relays[name], scenario, args.seconds)
                    results[scenario][name].append(run)
            print(f"round {number + 1} of {args.rounds} done", file=sys.stderr, flush=True)
        print(f"relay CPU per message there and back, {args.rounds} rounds of {args.seconds} s; "
              "ratios to the relay by hand")
        for scenario in scenarios:
            compare.table(scenario, results[scenario], "by hand")
            size = compare.SCENARIOS[scenario][2]
            if size >= 1 << 20:
                per = {name: min(run["us"] for run in runs) * 1000 / (2 * size)
                       for name, runs in results[scenario].items()}
                said = ", ".join(f"{name} {cost:.3f}" for name, cost in per.items())
                print(f"  nanoseconds of CPU per byte relayed, best: {said}")
        if not args.skip_calls:
            print("\nsystem calls of the relay per message of 64 B there and back")
            for connections in (64, 1):
                for name in ("by hand", "proxy"):
                    print_calls(name, relays[name], connections)


if __name__ == "__main__":
    try:
        main()
    except Failed as e:
        sys.exit(f"relay.py: {e}")
    except subprocess.TimeoutExpired as e:
        sys.exit(f"relay.py: a run did not end in time: {e}")
    except KeyboardInterrupt:
        sys.exit(130)
