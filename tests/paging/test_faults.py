"""Disks and ranks that fail while states are on their way: the right answer, or a clean stop after which the run goes on.

Drawn trials: short reads, EIO once and for ever, bits that flip in the store, disks that are full or hang, ranks that are
killed at a page, stores of other runs in the same directory. A trial that stops names its cause, and --restart auto ends
with the state hash of an undisturbed run. QUORATE_PAGING_TRIALS: how many (default 28).
"""

import collections
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "support"))
from side_by_side import COMPUTING, side_by_side  # noqa: E402

QUORATE = os.environ["QUORATE"]
TRIALS = int(os.environ.get("QUORATE_PAGING_TRIALS", "28"))
PATIENCE_S = 150

DECK = """
run: {seed: 11, steps: 10, stop: steps}
agents: {count: 8192, options: 3}
model: {rule: neural, state_dim: 16, hidden: 8}
network: {kind: small_world, degree: 4, rewire: 0.1}
compute: {backend: cpu, threads: 1}
io: {timeout: 20 s}
memory:
  page: 32 KiB
  tiers:
    cpu: {capacity: 128 KiB}
    nvme: {directory: scratch/nvme, capacity: 160 KiB}
    hdd: {directory: scratch/hdd, compression: none}
checkpoint: {every: 2 steps, tiers: {ssd: {directory: kept}}}
output: {directory: out}
"""
# Kind, what fails, whether the run may (True), must (None: never may) end before its last step, words of the message.
ONCE = None
KINDS = [
    ("short read", "pages.short:EIO@{n}", ONCE, ""),
    ("short reads", "pages.short:EIO@{n}+", True, r"page \d+|pages?\b"),
    ("EIO once", "pages.read:EIO@{n}", ONCE, ""),
    ("EIO at a write", "pages.write:EIO@{n}", ONCE, ""),
    ("EIO for ever", "pages.read:EIO@{n}+", True, r"page \d+.*scratch|scratch.*page \d+"),
    ("a tier is full", "pages.write=scratch/nvme:ENOSPC@{n}+", ONCE, ""),
    ("all tiers are full", "pages.write:ENOSPC@{n}+", True, r"scratch|tier"),
    ("disk cannot be written", "pages.write=scratch/nvme:EIO@{n}+", ONCE, ""),
    ("killed at a write", "pages.write:kill@{n}", True, ""),
    ("killed at a read", "pages.read:kill@{n}", True, ""),
    ("hangs at a read", "pages.read:hang@{n}", True, r"page|answer"),
    ("slow", "pages.read:slow@{n}", ONCE, ""),
    ("bit flips", "", True, r"page \d+"),
    ("store of another run", "", ONCE, ""),
]


def command(ranks, io_ranks, more):
    line = [QUORATE, "run", "deck.yml", "--restart", "auto", "--set", f"io.ranks_per_node={io_ranks}", *more]
    n = ranks + io_ranks
    return line if n == 1 else ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(n), *line]


def start(folder, ranks, io_ranks, fault, more=()):
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    environment.pop("QUORATE_FAULT", None)
    if fault:
        environment["QUORATE_FAULT"] = fault
    with open(os.path.join(folder, "deck.yml"), "w", encoding="utf-8") as out:
        out.write(DECK)
    log = open(os.path.join(folder, "log"), "w", encoding="utf-8")
    return subprocess.Popen(command(ranks, io_ranks, more), cwd=folder, env=environment, stdout=log,
                            stderr=subprocess.STDOUT, start_new_session=True)


def finish(folder, job, meanwhile=None):
    """Bounded in awake seconds. Exit code (None: it hung) and output."""
    for _ in range(int(PATIENCE_S / 0.02)):
        if job.poll() is not None:
            break
        if meanwhile is not None:
            meanwhile()
        time.sleep(0.02)
    code = job.poll()
    if code is None:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    with open(os.path.join(folder, "log"), encoding="utf-8", errors="replace") as log:
        return code, log.read()


def answer(output):
    return re.findall(r"^(?:decision: .*|state hash: [0-9a-f]{32})$", output, re.MULTILINE)


def stores(folder):
    return [os.path.join(at, name) for at, _, names in os.walk(os.path.join(folder, "scratch")) for name in names]


def flip_a_bit(folder, draw, flipped):
    """In a store, behind its head."""
    paths = stores(folder)
    for path in draw.sample(paths, len(paths)):
        try:
            size = os.path.getsize(path)
            if size > 8192:
                with open(path, "r+b", buffering=0) as store:
                    at = draw.randrange(4096, size)
                    store.seek(at)
                    byte = store.read(1)[0]
                    store.seek(at)
                    store.write(bytes([byte ^ 1 << draw.randrange(8)]))
                    flipped.append(at)
                return
        except OSError:
            continue


def plant_stores(folder, draw):
    """What a run that is gone left: whole, cut short, or without a head; that may be one that is just being made."""
    for tier in ("nvme", "hdd"):
        os.makedirs(os.path.join(folder, "scratch", tier))
    with tempfile.TemporaryDirectory() as other:
        code, output = finish(other, start(other, 1, 0, "pages.read:kill@30"))
        left = stores(other)
        assert code != 0 and left, (code, output)
        for path in left:
            to = os.path.join(folder, "scratch", os.path.relpath(path, os.path.join(other, "scratch")))
            with open(path, "rb") as store, open(to, "wb") as out:
                out.write(store.read()[:draw.choice([10_000_000, 5000, 100])])
            minutes_ago = time.time() - 120
            os.utime(to, (minutes_ago, minutes_ago))


def trial(kind, fault, may_stop, words, seed, expected):
    draw = random.Random(seed)
    ranks, io_ranks = draw.choice([(1, 0), (1, 0), (1, 1), (2, 1)])
    fault = fault.format(n=draw.choice([1, 2, 5, 12, 30, 60]))
    more = ["--set", "io.timeout=3 s"] if "hang" in fault else []
    what = (kind, fault, ranks, io_ranks, seed)
    with tempfile.TemporaryDirectory() as folder:
        if kind == "store of another run":
            plant_stores(folder, draw)
        flipped = []
        meanwhile = (lambda: flip_a_bit(folder, draw, flipped)) if kind == "bit flips" else None
        job = start(folder, ranks, io_ranks, fault, more)
        code, output = finish(folder, job, meanwhile)
        assert code is not None, (what, "hangs", output)
        if code == 0:
            assert answer(output) == expected, (what, output)
            assert not stores(folder), (what, stores(folder))
            return kind, "ended"
        assert may_stop, (what, code, output)
        if "kill" not in fault:
            assert code in (3, 4), (what, code, output)
            assert "quorate: error: " in output and re.search(words, output, re.DOTALL), (what, output)
        code, output = finish(folder, start(folder, draw.choice([1, 2]), io_ranks, ""))
        assert code == 0 and answer(output) == expected, (what, "restart", code, output)
        assert not stores(folder), (what, stores(folder))
        return kind, "stopped"


def neighbours(expected):
    """Two runs that page in the same directories at the same time leave each other's stores alone."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        os.makedirs(os.path.join(one, "scratch"))
        os.symlink(os.path.join(one, "scratch"), os.path.join(other, "scratch"))
        jobs = [(folder, start(folder, 1, 0, "pages.read:slow@3,pages.read:slow@9")) for folder in (one, other)]
        for folder, job in jobs:
            code, output = finish(folder, job)
            assert code == 0 and answer(output) == expected, (code, output)
    return "two runs in the same directories", "ended"


def rescued(*more):
    """Of agents that hardly ever change, the first checkpoint holds what the state hash needs at the end, and what later
    checkpoints need that refer to it or, where they are to be whole, take it from there. Of 64 pages 48 are on disk: the first
    one reads these, and nothing else does before the end."""
    rare = ["--set", "run.activation=1e-6", "--set", "memory.page=8 KiB", *more]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        code, output = finish(one, start(one, 1, 0, "", rare))
        assert code == 0, output
        expected = answer(output)
        code, output = finish(other, start(other, 1, 0, "pages.read:EIO@60+", rare))
        assert code == 0 and answer(output) == expected, (code, output)
        # Incremental checkpoints need none of these pages; whole ones need all of them once more than the hash.
        assert output.count("is taken from checkpoint") > (48 if more else 0), output
        assert re.search(r"^  ssd +[2-5] +0 ", output, re.MULTILINE), output
    return "pages taken from a checkpoint that holds the same", "ended"


def tight(ranks, io_ranks):
    """A disk with room for just the pages that have to be there, and a checkpoint that takes far longer to be written than
    anybody waits: of 128 pages it holds half in memory, the rest keep their places until they are read, a tenth of a second
    each. New versions wait for these."""
    more = ["--set", "memory.page=4 KiB", "--set", "memory.tiers.cpu.capacity=64 KiB", "--set", "io.timeout=3 s",
            "--set", "memory.tiers.nvme.capacity=896 KiB", "--set", "memory.tiers.hdd.directory=",
            "--set", "checkpoint.every=8 steps", "--set", "checkpoint.staging=1 MiB", "--set", "io.slot_size=256 KiB",
            "--set", "io.slots=2", "--set", "memory.prefetch.ahead=2"]
    with tempfile.TemporaryDirectory() as folder:
        code, output = finish(folder, start(folder, ranks, io_ranks, "", more))
        assert code == 0, output
        expected = answer(output)
    with tempfile.TemporaryDirectory() as folder:
        code, output = finish(folder, start(folder, ranks, io_ranks, "checkpoint.write:slow@1+", more))
        assert code == 0 and answer(output) == expected, (code, output)
        assert re.search(r"^  ssd +2 +0 ", output, re.MULTILINE), output
    return "a slow checkpoint over a disk without room to spare", "ended"


def moved():
    """What a killed run left goes with the next attempt of the same results, also when that has its tiers elsewhere."""
    elsewhere = ["--set", "memory.tiers.nvme.directory=other/nvme", "--set", "memory.tiers.hdd.directory=other/hdd"]
    with tempfile.TemporaryDirectory() as folder:
        code, output = finish(folder, start(folder, 1, 0, "pages.read:kill@100"))
        assert code != 0 and len(stores(folder)) == 2, (code, output, stores(folder))
        kept = os.path.join(folder, "scratch", "nvme", "pages.mine")
        with open(kept, "w", encoding="utf-8") as mine:
            mine.write("not a page file")
        code, output = finish(folder, start(folder, 1, 0, "", elsewhere))
        assert code == 0 and stores(folder) == [kept], (code, output, stores(folder))
        assert "of pages of an earlier attempt" in output, output
    return "tiers that were elsewhere before", "ended"


def undisturbed():
    with tempfile.TemporaryDirectory() as folder:
        code, output = finish(folder, start(folder, 1, 0, "", ["--set", "memory.tiers.cpu.capacity=auto"]))
        assert code == 0, output
        return answer(output)


def main():
    expected = undisturbed()
    tasks = [lambda i=i: trial(*KINDS[i % len(KINDS)], 1000 + i, expected) for i in range(TRIALS)]
    tasks += [lambda: neighbours(expected), rescued, lambda: rescued("--set", "checkpoint.incremental=false")]
    tasks += [lambda: tight(1, 0), lambda: tight(2, 1), moved]
    outcomes = collections.Counter(side_by_side(tasks, COMPUTING))
    for (kind, outcome), n in sorted(outcomes.items()):
        print(f"{n:4d}  {kind}: {outcome}")
    assert sum(n for (_, outcome), n in outcomes.items() if outcome == "stopped") >= TRIALS // 8, outcomes


if __name__ == "__main__":
    main()
