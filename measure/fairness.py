#!/usr/bin/env python3
"""fairness.py [ROUNDS] [SECONDS] [NAME=COMMAND..]   one interactive client beside 1,000 that flood

Echo servers, one at a time, in shuffled rounds: lariat, lariat again as control, bare mio and tokio
on one thread, and what is named, for instance `libuv="./uv_echo {port}"`. The server has the first core; the flooders, one process, and the pinger have the
second, the pinger under a real-time priority (chrt) where that is allowed. Two scenes: the flooders
read what comes back, or never read. Prints for each the median over the rounds of the pinger's
50th and 99th percentile and the maximum of all, in milliseconds, and the MiB per second that the
flooders got back. Needs Linux and `cargo`.
"""
import os, random, selectors, signal, socket, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
FLOODERS = 1000
BLOCK = bytes(256 * 1024)


def build():
    for manifest, extra in ((f"{HERE}/Cargo.toml", []), (f"{ROOT}/Cargo.toml", ["--example", "echo_reactor"])):
        target = f"{HERE}/target" if not extra else f"{ROOT}/target"
        command = ["cargo", "build", "-q", "--release", "--manifest-path", manifest, "--target-dir", target]
        subprocess.run(command + extra, check=True)


def servers():
    echo = [f"{ROOT}/target/release/examples/echo_reactor", "-q", "--addr", "127.0.0.1:{port}"]
    return {
        "lariat": echo,
        "lariat again": echo,
        "bare mio": [f"{HERE}/target/release/bare_mio", "{port}"],
        "tokio": [f"{HERE}/target/release/tokio_ct", "{port}"],
        **{name: command.split() for name, command in (other.split("=", 1) for other in sys.argv[3:])},
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect(port):
    until = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def flood(port, reads, seconds, ready):
    """In a process of its own: sends as much as the server takes. Prints the bytes that came back."""
    os.sched_setaffinity(0, {1})
    selector = selectors.EpollSelector()
    events = selectors.EVENT_READ | selectors.EVENT_WRITE if reads else selectors.EVENT_WRITE
    for _ in range(FLOODERS):
        peer = connect(port)
        peer.setblocking(False)
        selector.register(peer, events)
    os.write(ready, b"x")
    heard, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        for key, what in selector.select(0.1):
            try:
                if what & selectors.EVENT_READ:
                    heard += len(key.fileobj.recv(1 << 18))
                if what & selectors.EVENT_WRITE:
                    key.fileobj.send(BLOCK)
            except BlockingIOError:
                pass
            except OSError:
                selector.unregister(key.fileobj)
    return heard


def ping(port, seconds):
    """Milliseconds of each echo of 64 bytes, one after the other, every 2 ms."""
    os.sched_setaffinity(0, {1})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError:
        pass
    peer = connect(port)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    took, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        begun = time.perf_counter()
        peer.sendall(bytes(64))
        left = 64
        while left:
            got = len(peer.recv(left))
            if got == 0:
                raise RuntimeError("the pinger was closed")
            left -= got
        took.append((time.perf_counter() - begun) * 1e3)
        time.sleep(0.002)
    return sorted(took)


def one(command, reads, seconds):
    port = free_port()
    log = tempfile.TemporaryFile()
    server = subprocess.Popen([part.format(port=port) for part in command], stdout=log, stderr=log,
                              preexec_fn=lambda: os.sched_setaffinity(0, {0}))
    results, ready = os.pipe(), os.pipe()
    connect(port).close()
    child = os.fork()
    if child == 0:
        try:
            heard = flood(port, reads, seconds + 1, ready[1])
            os.write(results[1], str(heard).encode())
        finally:
            os._exit(0)
    try:
        os.read(ready[0], 1)
        time.sleep(0.5)
        reader, writer = os.pipe()
        pinger = os.fork()
        if pinger == 0:
            try:
                took = ping(port, seconds)
                at = lambda part: took[min(len(took) - 1, int(len(took) * part))]
                os.write(writer, f"{at(0.5)} {at(0.99)} {took[-1]} {len(took)}".encode())
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(pinger, 0)
        took = [float(part) for part in os.read(reader, 200).split()]
        os.waitpid(child, 0)
        heard = int(os.read(results[0], 40) or b"0")
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
    if not took:
        raise RuntimeError("the pinger was not served")
    return took, heard / seconds / (1 << 20)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3
    build()
    for reads in (True, False):
        found = {name: [] for name in servers()}
        for _ in range(rounds):
            names = list(found)
            random.shuffle(names)
            for name in names:
                found[name].append(one(servers()[name], reads, seconds))
        what = "read" if reads else "never read"
        print(f"beside {FLOODERS} that {what}: p50, p99, maximum in ms, MiB/s back")
        for name, runs in found.items():
            middle = lambda at: statistics.median(run[0][at] for run in runs)
            most = max(run[0][2] for run in runs)
            back = statistics.median(run[1] for run in runs)
            print(f"  {name:14} {middle(0):8.2f} {middle(1):8.2f} {most:8.2f} {back:8.0f}", flush=True)


if __name__ == "__main__":
    main()
