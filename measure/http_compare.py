#!/usr/bin/env python3
"""http_compare.py   requests per second and CPU per request: http_hello twice, hyper, nginx

    measure/http_compare.py [ROUNDS] [SECONDS]      [5 rounds of 3 s each]

All answer the same 19 bytes. In every round all servers are measured in a new order, each pinned to
core 0 with its client on core 1, so that they share whatever else the machine does; http_hello is
entered twice, as control: a difference that is not clearly larger than that between the two means
nothing. wrk asks at 64 and 1,000 connections, the load generator with 16 requests under way on each
of 64. CPU time is that of the server's process, from the kernel's scheduler.

Needs wrk and taskset; nginx is left out if it is not installed.
"""

import glob
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
LOAD = f"{HERE}/target/release/load"
HELLO = f"{ROOT}/target/release/examples/http_hello"
PEER = f"{HERE}/target/release/http_peer"
SCENARIOS = {"64 connections": 64, "1,000 connections": 1000, "64, 16 under way": 16}
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log /dev/null crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000; default_type "text/plain; charset=utf-8";
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "Hello from lariat.\\n"; }} }}
}}
"""


def build():
    for manifest, more in (
        (f"{HERE}/Cargo.toml", ["-p", "load", "--target-dir", f"{HERE}/target"]),
        (f"{HERE}/http_peer/Cargo.toml", ["--target-dir", f"{HERE}/target"]),
        (f"{ROOT}/Cargo.toml", ["--example", "http_hello", "--target-dir", f"{ROOT}/target"]),
    ):
        command = ["cargo", "build", "--quiet", "--release", "--manifest-path", manifest, *more]
        subprocess.run(command, check=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(name, folder):
    port = free_port()
    if name.startswith("http_hello"):
        command = [HELLO, "-q", "-a", f"127.0.0.1:{port}"]
    elif name == "hyper":
        command = [PEER, str(port)]
    else:
        config = f"{folder}/nginx.conf"
        with open(config, "w") as file:
            file.write(NGINX.format(port=port, folder=folder))
        command = ["nginx", "-c", config, "-p", folder]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(["taskset", "-c", "0", *command], **quiet)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, port
        except OSError:
            time.sleep(0.05)
    process.kill()
    sys.exit(f"{name} does not listen")


def cpu(pid):
    nanoseconds = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path) as file:
            nanoseconds += int(file.read().split()[0])
    return nanoseconds / 1e3


def ask(scenario, port, seconds):
    """Requests answered, and requests per second."""
    pin = ["taskset", "-c", "1"]
    if scenario == "64, 16 under way":
        command = [LOAD, "http", "--addr", f"127.0.0.1:{port}", "--connections", "64",
                   "--pipeline", "16", "--seconds", str(seconds)]
        said = subprocess.run(pin + command, capture_output=True, text=True, check=True).stdout
        return (int(re.search(r'"messages":(\d+)', said)[1]),
                float(re.search(r'"messages_per_s":([\d.]+)', said)[1]))
    count = str(SCENARIOS[scenario])
    command = ["wrk", "-t1", "-c", count, f"-d{seconds}s", f"http://127.0.0.1:{port}/"]
    said = subprocess.run(pin + command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        sys.exit(said)
    return int(re.search(r"(\d+) requests in", said)[1]), float(re.search(r"sec: +([\d.]+)", said)[1])


def main():
    if {"-h", "--help"} & set(sys.argv):
        return print(__doc__.strip())
    numbers = [int(arg) for arg in sys.argv[1:]] + [5, 3][len(sys.argv) - 1:]
    rounds, seconds = numbers[:2]
    build()
    names = ["http_hello", "http_hello again", "hyper"] + ["nginx"] * bool(shutil.which("nginx"))
    found = {(scenario, name): [] for scenario in SCENARIOS for name in names}
    for _ in range(rounds):
        for scenario in SCENARIOS:
            for name in random.sample(names, len(names)):
                with tempfile.TemporaryDirectory() as folder:
                    process, port = start(name, folder)
                    try:
                        before = cpu(process.pid)
                        count, rate = ask(scenario, port, seconds)
                        found[scenario, name].append(((cpu(process.pid) - before) / count, rate))
                    finally:
                        process.terminate()
                        process.wait()
    print("CPU us per request, best / median; requests per second, best")
    for scenario in SCENARIOS:
        for name in names:
            costs, rates = zip(*found[scenario, name])
            print(f"{scenario:18} {name:17} {min(costs):6.2f} / {statistics.median(costs):6.2f}"
                  f" {max(rates):9.0f}")


main()
