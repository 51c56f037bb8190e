"""A run that is killed at random, again and again, ends with the state hash and the decision it would have had.

Each story is a run in a fresh directory that is started with --restart auto until an attempt comes to its end. Attempts
die by SIGKILL: at a named point of the commit protocol (QUORATE_FAULT), or at a random moment, I/O and compute ranks
alike; the next attempt may have another number of ranks. Some die while they recover. Kills that came too late count as
nothing. QUORATE_KILLS: how many kills are wanted (default 40; with 200 every point of the protocol must have been reached).
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "support"))
from side_by_side import STARTING, side_by_side

QUORATE = os.environ["QUORATE"]
KILLS = int(os.environ.get("QUORATE_KILLS", "40"))
PATIENCE_S = 150  # disks that others keep busy have been seen to take a minute for one fsync

DECKS = {
    "neural": """
run: {seed: 5, steps: 40, stop: steps}
agents: {count: 6000, options: 3}
model: {rule: neural, state_dim: 8, hidden: 8}
network: {kind: random_regular, degree: 4}
memory: {page: 16 KiB}
checkpoint: {every: 4 steps, tiers: {nvme: {directory: fast}, ssd: {directory: slow}}}
output: {directory: out}
""",
    # Frozen regions: most pages stay as they are and are taken over from one checkpoint to the next.
    "majority": """
run: {seed: 6, steps: 40, stop: steps}
agents: {count: 32768, options: 2, initial: shares, shares: [2, 1]}
model: {rule: majority}
network: {kind: lattice2d, size: [256, 128]}
memory: {page: 4 KiB}
checkpoint: {every: 3 steps, keep: 3, tiers: {nvme: {directory: fast}, hdd: {directory: slow}}}
output: {directory: out}
""",
}
# (compute ranks, I/O ranks a node, emulated ranks a node); one compute rank needs no mpirun.
LAYOUTS = [(1, 0, 0), (1, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0), (3, 1, 2), (2, 0, 0), (4, 2, 3)]
POINTS = ["begin", "write", "fsync", "fsynced", "rename", "renamed", "directory", "index", "sealed", "manifest",
          "committed", "retire", "retire_data", "read"]

failures = 0
kills = 0
stories = 0
counting = threading.Lock()
reached = dict.fromkeys(POINTS, 0)
by_role = {"compute": 0, "I/O": 0}


def check(truth, what):
    global failures
    if not truth:
        failures += 1
        print(f"FAILED  {what}", flush=True)


def command(layout):
    compute, io_ranks, ranks_per_node = layout
    ranks = compute + (io_ranks if ranks_per_node == 0 else io_ranks * -(-compute // max(1, ranks_per_node - io_ranks)))
    line = [QUORATE, "run", "deck.yml", "--restart", "auto", "--set", f"io.ranks_per_node={io_ranks}",
            "--set", "compute.threads=1", "--set", "compute.backend=cpu"]
    if ranks_per_node > 0:
        line += ["--set", f"comm.ranks_per_node={ranks_per_node}"]
    return line if ranks == 1 else ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] + line


def pids_of(job):
    pids = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            if (parent == job.pid or int(entry) == job.pid) and \
                    os.readlink(f"/proc/{entry}/exe") == os.path.realpath(QUORATE):
                pids.append(int(entry))
        except (OSError, ValueError, IndexError):
            continue
    return sorted(pids)


def wait(job, seconds):
    """Awake seconds: a virtual machine may be suspended, its clock going on. None: it is still there."""
    for _ in range(int(seconds / 0.01)):
        if job.poll() is not None:
            return job.returncode
        time.sleep(0.01)
    return None


def attempt(folder, layout, point, moment, draw):
    """One start. Returns (exit code, output, whether it was killed)."""
    environment = dict(os.environ)
    environment.pop("QUORATE_FAULT", None)
    if point is not None:
        environment["QUORATE_FAULT"] = f"checkpoint.{point}:kill@{draw.choice([1, 1, 2, 3, 5, 8, 13])}"
    with open(os.path.join(folder, "log"), "w+", encoding="utf-8") as log:
        job = subprocess.Popen(command(layout), cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        if moment is not None:
            while log.tell() == 0 and job.poll() is None:  # mpirun has its own troubles with ranks that die as they are born
                time.sleep(0.005)
                log.seek(0, os.SEEK_END)
        if moment is not None and wait(job, moment) is None:
            victims = pids_of(job)
            if victims:
                index = draw.randrange(len(victims))
                os.kill(victims[index], signal.SIGKILL)
                on_node = index % layout[2] if layout[2] > 0 else index  # a node's first ranks do its I/O
                with counting:
                    by_role["I/O" if len(victims) > 1 and on_node < layout[1] else "compute"] += 1
        code = wait(job, PATIENCE_S)
        if code is None:
            for pid in pids_of(job) + [job.pid]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            job.wait()
        log.seek(0)
        return code, log.read(), code in (-signal.SIGKILL, 128 + signal.SIGKILL)


def undisturbed(deck):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "deck.yml"), "w", encoding="utf-8") as out:
            out.write(deck)
        code, output, _ = attempt(folder, (1, 0, 0), None, None, random.Random(0))
        assert code == 0, output
        return answer(output)


def answer(output):
    return re.findall(r"^(?:decision|state hash): .*$", output, re.MULTILINE)


def story(deck_name, expected, draw):
    global kills
    folder = tempfile.mkdtemp()
    with open(os.path.join(folder, "deck.yml"), "w", encoding="utf-8") as out:
        out.write(DECKS[deck_name])
    history = []
    for turn in range(12):
        layout = draw.choice(LAYOUTS)
        point = moment = None
        if turn < draw.randrange(1, 8):
            if draw.random() < 0.65:
                point = draw.choice(POINTS)
            else:
                moment = draw.uniform(0.0, 0.4)
        code, output, killed = attempt(folder, layout, point, moment, draw)
        history.append(f"{layout} {point or ''}{'' if moment is None else f'{moment:.2f} s'} -> {code}")
        if killed:
            with counting:
                kills += 1
                if point is not None:
                    reached[point] += 1
        if code is None:
            check(False, f"{deck_name}: an attempt did not end: {history}\n{output}")
            break
        if code == 0:
            check(answer(output) == expected, f"{deck_name}: another answer: {answer(output)} not {expected}: {history}")
            break
        # A job that lost a rank may say why, or be ended by mpirun; what it must not say is that its data are bad.
        check("cannot be used" not in output and "lost" not in output and "no checkpoint can be used" not in output,
              f"{deck_name}: a generation was lost: {history}\n{output}")
        if not killed:
            check(False, f"{deck_name}: an undisturbed attempt failed: {history}\n{output}")
            break
    else:
        check(False, f"{deck_name}: no attempt came to an end: {history}")
    shutil.rmtree(folder, ignore_errors=True)


def tell_stories(expected):
    """One after another, until there were kills enough."""
    global stories
    while True:
        with counting:
            if kills >= KILLS or failures > 0 or stories == 4 * KILLS:
                return
            number = stories
            stories += 1
        draw = random.Random(f"{os.environ.get('QUORATE_KILL_SEED', '1')}, {number}")
        name = draw.choice(list(DECKS))
        story(name, expected[name], draw)


def main():
    expected = {name: undisturbed(deck) for name, deck in DECKS.items()}
    side_by_side([lambda: tell_stories(expected)] * STARTING, STARTING)
    print(f"{kills} kills in {stories} runs; at points: {reached}; at random moments: {by_role}")
    check(kills >= KILLS, f"only {kills} kills")
    check(KILLS < 100 or all(n > 0 for n in reached.values()), "a point was never reached")
    sys.exit(1 if failures else 0)


main()
