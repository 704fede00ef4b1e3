#!/usr/bin/env python3
"""defects.py   plants each defect of defects.toml and shows which test finds it

  defects.py                          everything; a defect takes about half a minute
  defects.py --only one,another       these alone; a name may end in *
  defects.py --check                  whether every text is still found exactly once; builds nothing
  defects.py --seeds 2000             seeds of the random test; default 120, as in `cargo test`
  defects.py --random                 the seeded test alone: what it finds and reduces it to

The project is copied to a scratch directory. The copy without a defect must pass: that is the
control. Then each defect is planted alone and the tests run in this order until one fails: the
seeded test of the simulator, which stops at the first seed that fails and reduces what it has
found; the scripted tests of the simulator; the conformance scenarios; the tests of HTTP, which a
defect of HTTP is shown first; then all the others that `cargo test` runs. A test that hangs is stopped after --timeout seconds and does not
count: a test must fail by itself.

Ends with 1 when a defect was not found, could not be planted or does not compile.
"""
import argparse
import fnmatch
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
# What `check` says of a failure that it has reduced: events before and after, and the seconds.
REDUCED = re.compile(r"^reduced from (\d+) events in ([\d.]+) s by \d+ runs to (\d+) event", re.M)
KEPT = re.compile(r"^no event could be left out of (\d+) event.*, tried in ([\d.]+) s", re.M)
# What a test says when it has failed, or when its own watchdog had to end it.
FAILED = re.compile(r"^test (\S+) .*FAILED$|^stuck: (\S+)", re.M)
RANDOM = "general::random_runs_keep_every_rule_and_end"
# What is tried last, the quickest first.
OTHERS = ["probe", "allocations", "memory", "blocking", "reactor", "system"]


class Broken(Exception):
    """A defect that cannot be shown: its text has changed, or it does not compile."""


def place(text, defect):
    """Where the defect goes: the span of its text, which occurs exactly once.

    White space counts as such, however much, so that a changed indentation does no harm. `after`,
    where given, occurs exactly once, and the text is looked for from there on.
    """
    if missing := {"breaks", "file", "text", "instead"} - set(defect):
        raise Broken(f"without {', '.join(sorted(missing))}")
    start = 0
    if "after" in defect:
        start = only(text, defect["after"], defect, "after")[1]
        found = re.compile(pattern(defect["text"])).search(text, start)
        if found is None:
            raise Broken(f"{defect['file']}: not found behind `after`: {defect['text']!r}")
        return found.span()
    return only(text, defect["text"], defect, "text")


def pattern(words):
    return r"\s+".join(re.escape(word) for word in words.split())


def only(text, words, defect, what):
    found = list(re.finditer(pattern(words), text))
    if len(found) != 1:
        raise Broken(f"{defect['file']}: `{what}` found {len(found)} times: {words!r}")
    return found[0].span()


class Copy:
    """A copy of the project, in which one defect at a time is planted."""

    def __init__(self, folder, limit):
        self.folder = folder
        self.limit = limit
        # Of each failure of the seeded test: see `reduction`.
        self.reductions = []
        self.env = dict(os.environ, CARGO_INCREMENTAL="1", CARGO_TARGET_DIR=f"{folder}/target")
        for profile in ("DEV", "TEST"):
            self.env[f"CARGO_PROFILE_{profile}_DEBUG"] = "0"
            # With debug assertions, but many more seeds in the same time.
            self.env[f"CARGO_PROFILE_{profile}_OPT_LEVEL"] = "1"
        for name in ("LARIAT_SEED", "LARIAT_SEEDS", "LARIAT_REDUCE"):
            self.env.pop(name, None)
        self.fill()

    def fill(self):
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if os.path.isfile(f"{ROOT}/{name}"):
                os.makedirs(os.path.dirname(f"{self.folder}/{name}"), exist_ok=True)
                shutil.copyfile(f"{ROOT}/{name}", f"{self.folder}/{name}")

    def plant(self, defect):
        path = f"{self.folder}/{defect['file']}"
        with open(path, encoding="utf-8") as file:
            before = file.read()
        start, end = place(before, defect)
        with open(path, "w", encoding="utf-8") as file:
            file.write(before[:start] + defect["instead"].strip() + before[end:])
        return path, before

    def build(self, *test):
        args = ["cargo", "test", "--quiet", "--no-run", *test]
        built = subprocess.run(args, cwd=self.folder, env=self.env, capture_output=True, text=True)
        if built.returncode != 0:
            raise Broken("does not compile:\n" + built.stderr)

    def test(self, test, *args, **env):
        """The outcome and the output of a test: True, False, or None when it was stopped."""
        self.build(*test)
        command = ["cargo", "test", "--quiet", *test, "--", "--format", "pretty", *args]
        with tempfile.NamedTemporaryFile("w+", errors="replace") as output:
            ran = subprocess.Popen(command, cwd=self.folder, env=dict(self.env, **env),
                                   stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            until = time.monotonic() + self.limit
            while ran.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
                with open(output.name, errors="replace") as sofar:
                    if FAILED.search(sofar.read()):
                        # One is enough: the others may wait for something that does not come.
                        until = min(until, time.monotonic() + 2)
            try:
                code = ran.wait(0.1)
            except subprocess.TimeoutExpired:
                os.killpg(ran.pid, signal.SIGKILL)
                code = ran.wait()
            output.seek(0)
            text = output.read()
        if FAILED.search(text):
            return False, text
        if code == -signal.SIGKILL:
            return None, text
        return code == 0, text


def reduction(output):
    """Events before a reduction, after it, and the seconds it took; None where there was none."""
    found = REDUCED.search(output)
    if found:
        return int(found[1]), int(found[3]), float(found[2])
    found = KEPT.search(output)
    return (int(found[1]), int(found[1]), float(found[2])) if found else None


def steps(copy, args, file):
    """The tests, each with a function that names what has failed; `file` has the defect."""
    def seeds():
        passed, output = copy.test(["--test", "sim"], "--exact", RANDOM,
                                   LARIAT_SEEDS=str(args.seeds))
        seed = re.search(r"seed (\d+) failed", output)
        if not seed:
            return passed, "simulator, all seeds together"
        found = reduction(output)
        if not found:
            return passed, f"simulator, seed {seed[1]}"
        copy.reductions.append(found)
        before, after, took = found
        return passed, f"simulator, seed {seed[1]}: {before} events, {after} after {took} s"

    def listed(title, test, *more):
        passed, output = copy.test(test, *more)
        if passed is not False:
            return passed, title
        first = FAILED.search(output)
        name = first[1] or first[2] if first else "(the whole run)"
        return passed, f"{title} {name.split('::')[-1]}"

    def http():
        return listed("HTTP test", ["--test", "http"])

    if file.startswith("examples/sync_vs_async/"):
        # Nothing else is built from it.
        yield lambda: listed("test of the example", ["--example", "sync_vs_async"])
        return
    if file.startswith("src/protocols/http/"):
        yield http
    if file.startswith(("src/protocols/tls/", "src/protocols/capture/")):
        yield lambda: listed("TLS test", ["--test", "tls"])
    if file.startswith("src/protocols/auth/"):
        yield lambda: listed("authentication test", ["--test", "auth"])
    if file.startswith("src/protocols/framing/"):
        yield lambda: listed("framing test", ["--test", "probe"])
    yield seeds
    if args.random:
        return
    yield lambda: listed("simulator test", ["--test", "sim"], "--skip", RANDOM)
    yield lambda: listed("conformance scenario", ["--test", "conformance"])
    if not file.startswith("src/protocols/http/"):
        yield http
    yield lambda: listed("unit test", ["--lib"], "--skip", "ten_million")
    for test in OTHERS:
        yield lambda test=test: listed(f"{test} test", ["--test", test])


def search(copy, args, file=""):
    """What fails first; None when nothing does."""
    hung = []
    for step in steps(copy, args, file):
        passed, what = step()
        if passed is False:
            return what
        if passed is None:
            hung.append(what)
    return f"nothing, but stopped: {', '.join(hung)}" if hung else None


def show(name, found, took):
    print(f"{name:<44} {found:<72} {took:5.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--only", default="*")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--seeds", type=int, default=120)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--scratch", help="a directory to work in, which is kept")
    args = parser.parse_args()
    with open(f"{HERE}/defects.toml", "rb") as file:
        defects = tomllib.load(file)
    wanted = [name for name in defects
              if any(fnmatch.fnmatch(name, only) for only in args.only.split(","))]
    bad = 0
    for name in wanted:
        try:
            with open(f"{ROOT}/{defects[name]['file']}", encoding="utf-8") as file:
                place(file.read(), defects[name])
        except (Broken, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            bad += 1
    if args.check or bad:
        print(f"{len(wanted)} defects, {bad} of them cannot be planted")
        return 1 if bad else 0
    folder = args.scratch or tempfile.mkdtemp(prefix="defects-")
    os.makedirs(folder, exist_ok=True)
    try:
        copy = Copy(folder, args.timeout)
        began = time.monotonic()
        found = search(copy, args)
        show("(none: the control)", found or "nothing, as it must be", time.monotonic() - began)
        if found:
            return 1
        for name in wanted:
            began = time.monotonic()
            path, before = copy.plant(defects[name])
            try:
                found = search(copy, args, defects[name]["file"])
            except Broken as error:
                found = None
                print(f"{name}: {error}", file=sys.stderr)
            with open(path, "w", encoding="utf-8") as file:
                file.write(before)
            missed = found is None or found.startswith("nothing")
            bad += missed
            show(name, found or "NOT FOUND", time.monotonic() - began)
        print(f"{len(wanted) - bad} of {len(wanted)} found")
        if copy.reductions:
            middle = [statistics.median(column) for column in zip(*copy.reductions)]
            most = [max(column) for column in zip(*copy.reductions)]
            print(f"{len(copy.reductions)} reduced: median {middle[0]:.0f} events to "
                  f"{middle[1]:.0f} in {middle[2]:.1f} s, at most to {most[1]} in {most[2]} s")
    finally:
        if not args.scratch:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
