"""A rank killed at a random moment ends the job within ten seconds, with a cause; what was flushed stays readable.

Also: SIGUSR1 and SIGTERM end a run cleanly, with everything written up to the step they arrived in.
"""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "support"))
from side_by_side import side_by_side

QUORATE = os.environ["QUORATE"]
KILLS = 20
LONG = {"run.stop": "steps", "run.steps": "100000000", "network.kind": "lattice2d", "network.size": "[640, 300]",
        "output.flush_every": "0.2 s", "output.snapshot_every": "50 steps", "compute.threads": "1"}


def start(directory, ranks, io_ranks):
    command = ["mpirun", "-n", str(ranks + io_ranks), "--oversubscribe", "--bind-to", "none", QUORATE, "run", DECK]
    for key, value in (LONG | {"io.ranks_per_node": str(io_ranks), "output.directory": directory}).items():
        command += ["--set", f"{key}={value}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def rank_pids(job):
    pids = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            if parent == job.pid and os.readlink(f"/proc/{entry}/exe") == os.path.realpath(QUORATE):
                pids.append(int(entry))
        except (OSError, ValueError, IndexError):
            continue
    return sorted(pids)


def moments(seconds):
    """Short sleeps that sum to `seconds` of a machine that is awake: a virtual one may be suspended, its clock going on."""
    for _ in range(int(seconds / 0.05)):
        time.sleep(0.05)
        yield


def ends_within(job, seconds):
    return any(job.poll() is not None for _ in moments(seconds))


def wait_for_rows(path, job):
    """Until the first flush is readable."""
    for _ in moments(30):
        if job.poll() is not None:
            break
        try:
            with h5py.File(path) as file:
                if file["series/step"].shape[0] > 0:
                    return
        except OSError:
            pass
    sys.exit(f"FAILED: no readable {path} after 30 s\n{job.communicate()[0] if job.poll() is not None else ''}")


def check_series(path):
    """Rows are whole: consecutive steps, tallies that sum to the number of agents."""
    with h5py.File(path) as file:
        steps = file["series/step"][...]
        tally = file["series/tally"][...]
    if len(steps) == 0 or not np.array_equal(steps, np.arange(len(steps))):
        sys.exit(f"FAILED: {path}: {len(steps)} rows are not consecutive steps")
    if not np.all(tally.sum(axis=1) == 640 * 300):
        sys.exit(f"FAILED: {path}: tallies do not sum to the number of agents")
    return len(steps)


def kill_once(number, scratch):
    """Rows of the series, and how long the job took to end."""
    rng = random.Random(f"5, {number}")
    directory = os.path.join(scratch, f"kill{number}")
    io_ranks = rng.choice([0, 1])
    job = start(directory, 2, io_ranks)
    path = os.path.join(directory, "series.h5")
    try:
        wait_for_rows(path, job)
        time.sleep(rng.uniform(0.0, 0.8))
        os.kill(rng.choice(rank_pids(job)), signal.SIGKILL)
        killed = time.monotonic()
        if not ends_within(job, 10):
            sys.exit("FAILED: the job still runs 10 s after one of its ranks was killed")
        took = time.monotonic() - killed
        output = job.communicate()[0]
    finally:
        job.kill()
    if job.returncode == 0 or "signal 9" not in output:
        sys.exit(f"FAILED: exit code {job.returncode}, and no readable cause in:\n{output}")
    return check_series(path), took


def stop_once(number, to_mpirun, directory):
    """The signal goes to mpirun, which forwards it, or straight to every rank, as a batch system sends it."""
    job = start(directory, 2, 1)
    wait_for_rows(os.path.join(directory, "series.h5"), job)
    for pid in [job.pid] if to_mpirun else rank_pids(job):
        os.kill(pid, number)
    if not ends_within(job, 20):
        job.kill()
        sys.exit("FAILED: the job still runs 20 s after it was asked to stop")
    output = job.communicate()[0]
    with open(os.path.join(directory, "summary.json"), encoding="utf-8") as file:
        summary = json.load(file)
    name = signal.Signals(number).name
    rows = check_series(os.path.join(directory, "series.h5"))
    if job.returncode != 0 or summary["stopped_by"] != name or rows != summary["steps"] + 1:
        sys.exit(f"FAILED: {name}: exit {job.returncode}, {rows} rows, summary {summary}\n{output}")
    if "state hash:" not in output:
        sys.exit(f"FAILED: {name}: no state hash in\n{output}")


def main():
    with tempfile.TemporaryDirectory() as scratch:
        kills = [functools.partial(kill_once, number, scratch) for number in range(KILLS)]
        stops = [functools.partial(stop_once, signal.SIGUSR1, True, os.path.join(scratch, "usr1")),
                 functools.partial(stop_once, signal.SIGTERM, False, os.path.join(scratch, "term"))]
        done = side_by_side(kills + stops)[:KILLS]
        print(f"{KILLS} kills: every job ended within {max(took for _, took in done):.1f} s, every series readable; "
              f"{min(rows for rows, _ in done)} to {max(rows for rows, _ in done)} rows")
        print("SIGUSR1 and SIGTERM end a run cleanly")


if __name__ == "__main__":
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as deck:
        deck.write("run: {seed: 11}\n")
        deck.flush()
        DECK = deck.name
        main()
