#!/usr/bin/env python3
"""tls.py   an echo under TLS: lariat twice, and tokio-rustls on a current-thread runtime

    measure/tls.py cost [ROUNDS]            CPU time and rates, interleaved  [5 rounds]
    measure/tls.py memory [CONNECTIONS]     resident bytes per idle connection  [2,000]
    measure/tls.py silent [CONNECTIONS]     connections that say nothing, until they are cut  [10,000]
    measure/tls.py instructions             user-space instructions per message of 64 bytes
    measure/tls.py roles                    lariat's client at the other's server

The servers are the example `echo_reactor` with `--tls-cert`, and `tls_peer/`, both on rustls and ring,
with the same certificate (ECDSA, P-256). The load is tokio-rustls as well; it compares every byte.

`cost`: in every round each server is measured in a new order, pinned to core 0 with the load on core
1. lariat is entered twice, as control: a difference that is not clearly larger than that between the
two means nothing. CPU time is that of the server's process, from the kernel's scheduler.

`silent`: the connections are made at once; then an established client asks for an echo every 20 ms
until all of them have ended. It prints how long its slowest answer took, the memory per connection,
and after how long the first and the last were cut.

`instructions` needs valgrind, everything but `memory` openssl, `cost` taskset.
"""

import glob
import json
import os
import random
import resource
import selectors
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
EXAMPLES = f"{ROOT}/target/release/examples"
BIN = f"{HERE}/target/release"
LOAD = f"{BIN}/tls_load"
SERVERS = ("lariat", "lariat again", "tokio-rustls")
# Mode, connections at once, how many in all, bytes each, and what one of them is.
SCENARIOS = {
    "full handshakes": ("handshakes", 16, 4000, 0, "handshake"),
    "resumed": ("resumed", 16, 4000, 0, "handshake"),
    "64 bytes, 64 conns": ("small", 64, 150_000, 64, "round trip"),
    "64 bytes, 1 conn": ("small", 1, 30_000, 64, "round trip"),
    "bulk, 4 conns": ("bulk", 4, 600, 1 << 20, "MiB"),
}
PATIENCE = 60


def build():
    for manifest, more in (
        (f"{HERE}/tls_peer/Cargo.toml", ["--target-dir", f"{HERE}/target"]),
        (f"{ROOT}/Cargo.toml", ["--example", "echo_reactor", "--example", "client",
                                "--target-dir", f"{ROOT}/target"]),
    ):
        command = ["cargo", "build", "--quiet", "--release", "--manifest-path", manifest, *more]
        subprocess.run(command, check=True)


def certificate(folder):
    """A certificate for localhost that is its own authority, and its key."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
               "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{folder}/key.pem", "-out",
               f"{folder}/cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext",
               "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext",
               "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, name, folder, before=(), more=()):
        self.port = free_port()
        cert, key = f"{folder}/cert.pem", f"{folder}/key.pem"
        if name.startswith("lariat"):
            command = [f"{EXAMPLES}/echo_reactor", "-q", "-a", f"127.0.0.1:{self.port}", "--tls-cert",
                       cert, "--tls-key", key, *more]
        else:
            command = [f"{BIN}/tokio_rustls", str(self.port), cert, key]
        self.process = subprocess.Popen([*before, *command], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)
        # Both say when they listen; the pipe holds all that they say.
        if not self.process.stdout.readline():
            sys.exit(f"{name} does not listen")
        self.pid = self.process.pid

    def load(self, folder, mode, connections, count, size, before=()):
        command = [*before, LOAD, mode, "--addr", f"127.0.0.1:{self.port}", "--ca",
                   f"{folder}/cert.pem", "--connections", str(connections), "--count", str(count),
                   "--size", str(size)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{mode}: {done.stderr}")
        return json.loads(done.stdout)

    def cpu(self):
        """Microseconds."""
        nanoseconds = 0
        for path in glob.glob(f"/proc/{self.pid}/task/*/schedstat"):
            with open(path) as file:
                nanoseconds += int(file.read().split()[0])
        return nanoseconds / 1e3

    def resident(self):
        with open(f"/proc/{self.pid}/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


def cost(folder, rounds):
    found = {(scenario, name): [] for scenario in SCENARIOS for name in SERVERS}
    for _ in range(rounds):
        for scenario, (mode, connections, count, size, _) in SCENARIOS.items():
            for name in random.sample(SERVERS, len(SERVERS)):
                with Server(name, folder, before=["taskset", "-c", "0"]) as server:
                    before = server.cpu()
                    done = server.load(folder, mode, connections, count, size,
                                       before=["taskset", "-c", "1"])
                    took = server.cpu() - before
                    if mode == "resumed" and done["resumed"] < count - connections:
                        sys.exit(f"{name}: {done['resumed']} of {count} were resumed")
                    if mode == "handshakes" and done["resumed"]:
                        sys.exit(f"{name}: {done['resumed']} were resumed")
                    found[scenario, name].append((took / count, count / done["seconds"]))
    print("CPU us of the server, best / median; per second, best; CPU beside lariat, by the best")
    for scenario, (*_, what) in SCENARIOS.items():
        best = min(found[scenario, "lariat"])[0]
        for name in SERVERS:
            costs, rates = zip(*found[scenario, name])
            print(f"{scenario:18}  {name:13} {min(costs):8.2f} / {statistics.median(costs):8.2f} us a"
                  f" {what:10} {max(rates):9.0f}/s  {min(costs) / best:5.2f}")


def memory(folder, connections):
    for name in SERVERS:
        with Server(name, folder) as server:
            server.load(folder, "small", 1, 100, 64)
            before = server.resident()
            command = [LOAD, "idle", "--addr", f"127.0.0.1:{server.port}", "--ca",
                       f"{folder}/cert.pem", "--connections", str(connections)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
                if holder.stdout.readline() != b"ready\n":
                    sys.exit("the load gave up")
                held = server.resident()
                holder.stdin.close()
            print(f"{name:13} {(held - before) / connections:9.0f} bytes per idle connection"
                  f" ({connections} held)")


def established(port, folder, stop, slowest):
    """Asks for an echo every 20 ms until `stop` is set."""
    context = ssl.create_default_context(cafile=f"{folder}/cert.pem")
    with socket.create_connection(("127.0.0.1", port)) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as client:
            client.settimeout(PATIENCE)
            while not stop.is_set():
                began = time.monotonic()
                client.sendall(b"x" * 64)
                got = b""
                while len(got) < 64:
                    part = client.recv(64)
                    if not part:
                        slowest.append(float("inf"))
                        return
                    got += part
                slowest.append(time.monotonic() - began)
                stop.wait(0.02)


def silent(folder, connections):
    with Server("lariat", folder, more=["--max-conns", str(connections + 100)]) as server:
        server.load(folder, "small", 1, 100, 64)
        stop, answers = threading.Event(), []
        client = threading.Thread(target=established, args=(server.port, folder, stop, answers))
        client.start()
        while not answers:
            time.sleep(0.01)
        before = server.resident()
        waiting, began = selectors.EpollSelector(), time.monotonic()
        for number in range(connections):
            # One address has too few ports beside those in use.
            one = socket.socket()
            one.bind((f"127.0.0.{2 + number % 8}", 0))
            one.connect(("127.0.0.1", server.port))
            one.setblocking(False)
            waiting.register(one, selectors.EVENT_READ)
        made = time.monotonic() - began
        # Long enough for the last accept, and short of the deadline.
        time.sleep(3)
        held = server.resident()
        ends = []
        while len(ends) < connections:
            events = waiting.select(PATIENCE)
            if not events:
                break
            for key, _ in events:
                try:
                    key.fileobj.recv(1)
                except OSError:
                    pass
                waiting.unregister(key.fileobj)
                key.fileobj.close()
                ends.append(time.monotonic() - began)
        stop.set()
        client.join()
        after = server.resident()
        print(f"{connections} silent connections made in {made:.1f} s: "
              f"{(held - before) / connections:.0f} bytes each, "
              f"{(after - before) / connections:.0f} left when all have ended")
        print(f"cut: {len(ends)}, the first {min(ends):.1f} s and the last {max(ends):.1f} s after the"
              f" first was made")
        print(f"an established client: {len(answers)} answers, the slowest after"
              f" {max(answers) * 1e3:.1f} ms, 99 of 100 within"
              f" {sorted(answers)[len(answers) * 99 // 100] * 1e3:.2f} ms, the median"
              f" {statistics.median(answers) * 1e3:.2f} ms")


def instructions(folder):
    few, many = 2000, 12_000
    for name in ("lariat", "tokio-rustls"):
        for connections in (64, 1):
            totals = []
            for count in (few, many):
                out = f"{folder}/callgrind"
                before = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
                with Server(name, folder, before=before) as server:
                    server.load(folder, "small", connections, count, 64)
                    time.sleep(0.5)
                with open(out) as file:
                    lines = [line.split()[1] for line in file
                             if line.startswith(("summary:", "totals:"))]
                totals.append(max(map(int, lines)))
            each = (totals[1] - totals[0]) / (many - few)
            print(f"{name:13} {connections:3} connections: {each:8.0f} instructions per message")


def roles(folder):
    with Server("tokio-rustls", folder) as server:
        for driver in ("reactor", "blocking"):
            words = os.urandom(1_500_000)
            command = [f"{EXAMPLES}/client", "--driver", driver, "--tls", "--ca",
                       f"{folder}/cert.pem", f"localhost:{server.port}"]
            done = subprocess.run(command, input=words, capture_output=True)
            same = done.returncode == 0 and done.stdout == words
            print(f"lariat's client ({driver}) at a server on tokio-rustls: "
                  f"{'all bytes came back' if same else done}")


def main():
    part, numbers = (sys.argv[1:2] or ["-h"])[0], [int(word) for word in sys.argv[2:]]
    parts = {"cost": (cost, 5), "memory": (memory, 2000), "silent": (silent, 10_000),
             "instructions": (instructions, None), "roles": (roles, None)}
    if part not in parts:
        return print(__doc__.strip())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    build()
    with tempfile.TemporaryDirectory() as folder:
        certificate(folder)
        run, default = parts[part]
        run(folder, *(numbers[:1] or ([default] if default else [])))


main()
