#!/usr/bin/env python3
"""Checks the load of the example `sync_vs_async` against independent load generators.

    measure/side_by_side.py [ROUNDS]

On one running server the generators take turns, a second each: the other one, that of the example, the
other one again. HTTP: wrk and the page. Echo: `measure/load` and messages of 64 bytes. Printed are
requests per second, the middle and the range of the rounds.

The two entries of the same generator say how far figures of this machine differ by themselves; that of
the example should lie within twice as much. This is decided within each round, whose runs follow one
another in three seconds, so that a machine that others use for a while does not widen it: the factor
from the first entry to the second, against the factor from the middle of both to the example's. The
middle of all rounds counts.
"""

import json
import math
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
OWN_TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "measure/target"))
SECONDS = 1
CONNECTIONS = (1, 64)


def build():
    cargo = ["cargo", "build", "--quiet", "--release"]
    subprocess.run([*cargo, "--example", "sync_vs_async", "--example", "echo_reactor"], cwd=ROOT,
                   check=True)
    subprocess.run([*cargo, "--manifest-path", "measure/Cargo.toml", "-p", "load"], cwd=ROOT,
                   check=True)


def example(name):
    return os.path.join(TARGET, "release/examples", name)


class Server:
    """A server that ends with this program: with its standard input, or killed at the end."""

    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.addr = re.search(r"127\.0\.0\.1:\d+", self.process.stdout.readline())[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def told(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          timeout=60, check=True)
    return done.stdout


def example_load(server, connections, http):
    order = {
        "addr": server.addr, "pid": server.process.pid, "http": http, "echo": not http,
        "connections": connections, "idle": 0, "flooders": 0, "slow_readers": 0,
        "size": 0 if http else 64, "rate": None, "special": None, "warm_ms": 200,
        "run_ms": int(SECONDS * 1000), "requests": None, "marks": False, "heat": False,
    }
    command = [example("sync_vs_async"), "load", json.dumps(order)]
    # It ends when its standard input does.
    load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line = load.stdout.readline()
    load.stdin.close()
    load.wait(timeout=60)
    result = json.loads(line)
    if "Ok" not in result:
        sys.exit(f"side_by_side: {result}")
    return result["Ok"]["per_s"]


def wrk(server, connections):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(SECONDS))}s",
               f"http://{server.addr}/"]
    return float(re.search(r"Requests/sec:\s*([\d.]+)", told(command))[1])


def own_load(server, connections):
    command = [os.path.join(OWN_TARGET, "release/load"), "echo", "--addr", server.addr,
               "--connections", str(connections), "--size", "64", "--seconds", str(SECONDS)]
    return json.loads(told(command))["messages_per_s"]


def middle(values):
    values = sorted(values)
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def compare(name, command, other, http, rounds):
    print(f"{name}, requests/s, {rounds} rounds: middle (lowest to highest)")
    for connections in CONNECTIONS:
        values = {"first": [], "example": [], "again": []}
        with Server(*command) as server:
            for _ in range(rounds):
                values["first"].append(other(server, connections))
                values["example"].append(example_load(server, connections, http))
                values["again"].append(other(server, connections))
        for who, all_of in values.items():
            print(f"  {connections:3} connections  {who:8} {middle(all_of):9,.0f}"
                  f"  ({min(all_of):,.0f} to {max(all_of):,.0f})")
        turns = list(zip(values["first"], values["example"], values["again"]))
        spread = middle([abs(math.log(again / first)) for first, _, again in turns])
        # With its sign: what is away now to one side and now to the other is not away.
        away = abs(middle([math.log(own / math.sqrt(first * again)) for first, own, again in turns]))
        print(f"  {connections:3} connections  away by a factor of {math.exp(away):.2f}, the spread is "
              f"one of {math.exp(spread):.2f}, twice as much {math.exp(2 * spread):.2f}: "
              f"{'within' if away <= 2 * spread else 'BEYOND'}")


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    build()
    web = [example("sync_vs_async"), "serve", "reactor", "--http"]
    compare("HTTP, wrk first and again", web, wrk, True, rounds)
    echo = [example("echo_reactor"), "-a", "127.0.0.1:0", "-q"]
    compare("echo, measure/load first and again", echo, own_load, False, rounds)


if __name__ == "__main__":
    main()
