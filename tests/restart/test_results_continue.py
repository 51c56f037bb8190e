"""Results go on after a restart: what killed and stopped attempts leave together is what an undisturbed run leaves.

Series and snapshots are compared row by row and bit for bit, on other ranks and servers from attempt to attempt, with kills
at random moments and at every step of taking results over. After each kill the files open, and nothing that a checkpoint
holds is missing. QUORATE_STORIES: how many runs are disturbed (default 8).
"""

import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "support"))
from side_by_side import COMPUTING, side_by_side

QUORATE = os.environ["QUORATE"]
PLOT = os.path.join(os.environ["SOURCE_DIR"], "postproc", "plot.py")
STORIES = int(os.environ.get("QUORATE_STORIES", "8"))
KILL_SEED = os.environ.get("QUORATE_KILL_SEED", "3")
PATIENCE_S = 150
STEPS = 960
DECK = f"""
run: {{title: Goes on, seed: 9, steps: {STEPS}, stop: steps, progress_every: 0.02 s}}
agents: {{options: 3}}
model: {{rule: neural, state_dim: 16, hidden: 32}}
network: {{kind: lattice2d, size: [96, 64]}}
checkpoint: {{every: 10 steps, tiers: {{nvme: {{directory: fast}}}}}}
output: {{directory: out, series_every: 3 steps, snapshot_every: 7 steps}}
"""
# (compute ranks, I/O ranks a node, emulated ranks a node); one compute rank alone needs no mpirun.
LAYOUTS = [(1, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0), (2, 0, 0), (3, 1, 2), (4, 2, 3)]
POINTS = ["results.part", "results.series", "results.metrics", "results.joined", "checkpoint.manifest",
          "checkpoint.committed"]
reached = dict.fromkeys(POINTS, 0)


def start(folder, layout, *sets, fault=None, restart=True):
    compute, io_ranks, ranks_per_node = layout
    ranks = compute + (io_ranks if ranks_per_node == 0 else io_ranks * -(-compute // max(1, ranks_per_node - io_ranks)))
    line = [QUORATE, "run", "deck.yml", "--set", f"io.ranks_per_node={io_ranks}", "--set", "compute.threads=1",
            "--set", "compute.backend=cpu"]
    line += ["--restart", "auto"] if restart else []
    if ranks_per_node > 0:
        line += ["--set", f"comm.ranks_per_node={ranks_per_node}"]
    for value in sets:
        line += ["--set", value]
    if ranks > 1:
        line = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] + line
    environment = {key: value for key, value in os.environ.items() if key != "QUORATE_FAULT"}
    if fault is not None:
        environment["QUORATE_FAULT"] = fault
    with open(Path(folder, "log"), "w", encoding="utf-8") as log:
        return subprocess.Popen(line, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)


def wait(job, seconds):
    """Awake seconds: a virtual machine may be suspended, its clock going on. None: it is still there."""
    for _ in range(int(seconds / 0.01)):
        if job.poll() is not None:
            return job.returncode
        time.sleep(0.01)
    return None


def ranks_of(job):
    pids = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            if job.pid in (parent, int(entry)) and os.readlink(f"/proc/{entry}/exe") == os.path.realpath(QUORATE):
                pids.append(int(entry))
        except (OSError, ValueError, IndexError):
            continue
    return sorted(pids)


def finish(folder, job):
    """(exit code, what it said); a job that does not end fails the test."""
    code = wait(job, PATIENCE_S)
    said = Path(folder, "log").read_text(encoding="utf-8")
    if code is None:
        for pid in ranks_of(job) + [job.pid]:
            os.kill(pid, signal.SIGKILL)
        job.wait()
        raise AssertionError(f"a job did not end:\n{said}")
    return code, said


def run(folder, layout, *sets, **options):
    return finish(folder, start(folder, layout, *sets, **options))


def fresh(deck=DECK):
    folder = tempfile.mkdtemp()
    Path(folder, "deck.yml").write_text(deck, encoding="utf-8")
    return folder


def read_all(out):
    """Everything that does not depend on the clock; snapshots that a part lacks after a kill are left out."""
    found = {}
    with h5py.File(Path(out, "series.h5")) as file:
        for name in file["series"]:
            found[name] = file["series"][name][:]
    if Path(out, "snapshots.h5").exists():
        with h5py.File(Path(out, "snapshots.h5")) as file:
            votes, steps = file["votes"][:], file["step"][:]
            whole = (votes < 3).all(axis=1)
            n = min(int(np.argmin(whole)) if not whole.all() else len(whole), len(steps))
            found["votes"], found["taken"] = votes[:n], steps[:n]
    return found


def check_same(found, expected, what):
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, (what, name)
        assert found[name].shape == value.shape, (what, name, found[name].shape, value.shape)
        assert (found[name] == value).all(), (what, name)


def check_after_kill(out, expected, what):
    """What is there is the beginning of what shall be, and holds all that checkpoints count on."""
    if not Path(out, "series.h5").exists():
        return
    found = read_all(out)
    # What an attempt wrote only because it was stopped stays until the next one has taken over.
    for clock, every, names in (("step", 3, list(found.keys() - {"taken", "votes"})), ("taken", 7, ["taken", "votes"])):
        if clock in found:
            due = (found[clock] % every == 0) | (found[clock] == STEPS)
            found |= {name: found[name][due] for name in names}
    for name, value in found.items():
        assert len(value) <= len(expected[name]) and (value == expected[name][: len(value)]).all(), (what, name)
    manifests = Path(out).parent.glob("fast/*.manifest")
    step = max((json.loads(m.read_text().rsplit("seal:", 1)[0])["step"] for m in manifests), default=-1)
    for name, every in (("step", 3), ("taken", 7)):
        wanted = step // every + 1
        assert step < 0 or (name in found and len(found[name]) >= wanted), (what, name, step, len(found.get(name, [])))


def check_end(out, expected, what):
    check_same(read_all(out), expected, what)
    summary = json.loads(Path(out, "summary.json").read_text())
    assert summary["steps"] == expected["step"][-1], (what, summary)
    steps = [json.loads(line)["step"] for line in Path(out, "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == expected["step"][-1], (what, steps)
    grids = ElementTree.parse(Path(out, "snapshots.xdmf")).getroot().findall("./Domain/Grid/Grid")
    assert [float(g.find("Time").attrib["Value"]) for g in grids] == list(expected["taken"]), what
    with h5py.File(Path(out, "snapshots.h5")) as file:
        used = {m.file_name for m in file["votes"].virtual_sources()} if file["votes"].is_virtual else set()
    parts = {p.name for p in Path(out).glob("snapshots.*part*.h5")}
    assert parts == used, (what, parts, used)
    assert not [p for p in Path(out).iterdir() if p.name.startswith(".")], (what, list(Path(out).iterdir()))
    looked = subprocess.run([QUORATE, "info", out], capture_output=True, text=True, check=False)
    assert looked.returncode == 0 and "incomplete" not in looked.stdout, (what, looked)
    assert f"{len(expected['step'])} steps, 0 to {expected['step'][-1]}" in looked.stdout, (what, looked)


def table(out):
    return subprocess.run([sys.executable, PLOT, "--table", out], capture_output=True, text=True, check=True).stdout


def story(number, expected):
    draw = random.Random(f"{KILL_SEED}, {number}")
    folder = fresh()
    out = Path(folder, "out")
    history = []
    kills = 0
    for turn in range(14):
        layout = draw.choice(LAYOUTS)
        fault = None
        moment = None
        stop = False
        if turn < draw.randrange(2, 9):
            choice = draw.random()
            if choice < 0.5 and turn > 0:
                point = draw.choice(POINTS)
                fault = f"{point}:kill@{1 if point.startswith('results') else draw.choice([1, 2, 4])}"
            else:
                moment = draw.uniform(0.0, 0.7)
                stop = choice > 0.85
        job = start(folder, layout, fault=fault)
        # Launchers have troubles of their own with ranks that die as they are born.
        while moment is not None and job.poll() is None and Path(folder, "log").stat().st_size == 0:
            time.sleep(0.005)
        if moment is not None and wait(job, moment) is None:
            ranks = ranks_of(job)
            if stop and out.joinpath("series.h5").exists():  # ranks that have begun listen to signals
                job.send_signal(signal.SIGUSR1)
            elif ranks:
                os.kill(draw.choice(ranks), signal.SIGKILL)
        code, said = finish(folder, job)
        history.append((layout, fault, moment, stop, code))
        assert "not all there" not in said, (history, said)
        if code == 0:
            break
        disturbed = fault is not None or moment is not None
        assert disturbed, (history, said)
        kills += 1
        if fault is not None and code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            reached[fault.split(":")[0]] += 1
        if code != 75:
            check_after_kill(out, expected, (number, history))
    else:
        raise AssertionError(f"no attempt came to an end: {history}")
    check_end(out, expected, (number, history))
    tables = [table(out), EXPECTED_TABLE]
    assert tables[0] == tables[1], (number, history, tables)
    shutil.rmtree(folder)
    return kills


def test_each_point_of_taking_over(expected):
    """One after another in the same run, each attempt dying a moment further on, then on other servers."""
    folder = fresh()
    out = Path(folder, "out")
    code, said = run(folder, (1, 0, 0), fault="checkpoint.manifest:kill@3")
    assert code == -signal.SIGKILL, (code, said)
    for layout in ((1, 0, 0), (3, 1, 2)):
        for point in [p for p in POINTS if p.startswith("results")]:
            code, said = run(folder, layout, fault=f"{point}:kill")
            assert code in (-signal.SIGKILL, 128 + signal.SIGKILL), (point, code, said)
            check_after_kill(out, expected, point)
    code, said = run(folder, (2, 0, 0))
    assert code == 0, said
    check_end(out, expected, "each point")
    shutil.rmtree(folder)


def stopped(folder):
    """An attempt of this run that a signal ends; its last step."""
    job = start(folder, (2, 1, 0), "run.steps=1000000")
    while job.poll() is None and "network lattice2d" not in Path(folder, "log").read_text(encoding="utf-8"):
        time.sleep(0.02)
    time.sleep(0.3)
    job.send_signal(signal.SIGUSR1)
    code, said = finish(folder, job)
    assert code == 75, (code, said)
    return json.loads(Path(folder, "out", "summary.json").read_text())["steps"]


def test_rows_of_a_stop_do_not_stay(_):
    """A stopped run also writes what it has at that moment; the run that goes on has rows only where they are due, and
    what did not stay does not come back with the next restart."""
    folder = fresh()
    steps = []
    while len(steps) < 4 or sum(step % 3 != 0 and step % 7 != 0 for step in steps) < 2:
        steps.append(stopped(folder))
        found = read_all(Path(folder, "out"))
        assert found["step"][-1] == steps[-1] and found["taken"][-1] == steps[-1], (steps, found)
        assert len(steps) < 12, steps
    end = f"run.steps={steps[-1] + 20}"
    code, said = run(folder, (1, 0, 0), end)
    assert code == 0, said
    reference = fresh()
    code, said = run(reference, (1, 0, 0), end)
    assert code == 0, said
    check_end(Path(folder, "out"), read_all(Path(reference, "out")), f"stopped at {steps}")
    shutil.rmtree(folder)
    shutil.rmtree(reference)


def test_more_steps_than_at_first(expected):
    folder = fresh()
    code, said = run(folder, (2, 1, 0), "run.steps=100", restart=False)
    assert code == 0, said
    code, said = run(folder, (1, 1, 0), "run.steps=100")  # nothing is left to do, and nothing is lost
    assert code == 0 and "restart: checkpoint" in said, said
    found = read_all(Path(folder, "out"))
    assert found["step"][-1] == 100 and found["taken"][-1] == 100 and len(found["step"]) == 35, found["step"]
    code, said = run(folder, (1, 1, 0))
    assert code == 0, said
    check_end(Path(folder, "out"), expected, "more steps")
    shutil.rmtree(folder)


def half_a_run():
    folder = fresh()
    code, said = run(folder, (1, 0, 0), fault="checkpoint.manifest:kill@3")
    assert code == -signal.SIGKILL, (code, said)
    return folder


def check_tail(folder, expected, layout, said_once, what):
    """The run ends well, says once what is missing, and its last rows are right."""
    code, said = run(folder, layout)
    assert code == 0, (what, said)
    assert len(re.findall(said_once, said)) == 1, (what, said)
    found = read_all(Path(folder, "out"))
    for name in expected:
        n = len(found[name])
        assert 0 < n <= len(expected[name]) and (found[name] == expected[name][-n:]).all(), (what, name)
    return found, said


def test_missing_and_damaged_results(expected):
    folder = half_a_run()
    shutil.rmtree(Path(folder, "out"))
    found, said = check_tail(folder, expected, (3, 1, 2), r"series\.h5: the rows .* as it is missing", "missing")
    assert said.count("the snapshots up to step") == 1 and found["step"][0] > 10, said
    shutil.rmtree(folder)

    folder = half_a_run()
    series = Path(folder, "out", "series.h5")
    series.write_bytes(b"\0" * 4096)
    check_tail(folder, expected, (1, 1, 0), r"series\.h5: the rows .* as it is damaged", "damaged series")
    assert Path(folder, "out", "series.h5.damaged").stat().st_size == 4096
    shutil.rmtree(folder)

    folder = half_a_run()
    with h5py.File(Path(folder, "out", "series.h5"), "r+") as file:  # as if the last writes never reached the disk
        for name in file["series"]:
            file["series"][name].resize(2, axis=0)
    code, said = run(folder, (1, 0, 0))
    assert code == 0 and said.count("its last rows are missing") == 1, said
    steps = read_all(Path(folder, "out"))["step"]
    assert list(steps[:2]) == [0, 3] and steps[2] > 10 and steps[-1] == STEPS, steps
    shutil.rmtree(folder)

    folder = half_a_run()
    Path(folder, "out", "snapshots.h5").write_bytes(b"votes")
    check_tail(folder, expected, (1, 0, 0), r"the snapshots up to step .* not all there", "damaged snapshots")
    assert Path(folder, "out", "snapshots.h5.damaged").read_bytes() == b"votes"
    shutil.rmtree(folder)


def test_results_of_another_run_stay(expected):
    folder = half_a_run()
    shutil.move(Path(folder, "fast"), Path(folder, "kept"))
    shutil.rmtree(Path(folder, "out"))
    code, said = run(folder, (1, 0, 0), "run.steps=30", restart=False)
    assert code == 0, said
    before = Path(folder, "out", "series.h5").read_bytes()
    shutil.rmtree(Path(folder, "fast"))
    shutil.move(Path(folder, "kept"), Path(folder, "fast"))
    code, said = run(folder, (2, 1, 0))
    assert code == 3 and "holds results of another run" in said, (code, said)
    assert Path(folder, "out", "series.h5").read_bytes() == before
    code, said = run(folder, (2, 1, 0), "output.overwrite=true")
    assert code == 0, said
    steps = read_all(Path(folder, "out"))["step"]
    assert steps[0] > 10 and steps[-1] == STEPS, steps
    shutil.rmtree(folder)


def test_nothing_to_go_on_from(expected):
    """Killed before its first checkpoint, a run begins afresh; results of another deck are not touched."""
    folder = fresh()
    code, said = run(folder, (1, 0, 0), fault="checkpoint.begin:kill")
    assert code == -signal.SIGKILL and Path(folder, "out", "series.h5").exists(), (code, said)
    code, said = run(folder, (2, 1, 0), "run.seed=10")
    assert code == 3 and "holds results of an earlier run" in said, (code, said)
    code, said = run(folder, (2, 1, 0))
    assert code == 0 and "beginning afresh" in said, (code, said)
    check_end(Path(folder, "out"), expected, "afresh")
    shutil.rmtree(folder)

    folder = fresh()
    code, said = run(folder, (2, 0, 0), fault="checkpoint.begin:kill")
    assert code != 0 and Path(folder, "out", "snapshots.part001.h5").exists(), (code, said)
    code, said = run(folder, (4, 2, 3))  # the second of each node's servers has no agents
    assert code == 0 and "beginning afresh" in said, (code, said)
    check_end(Path(folder, "out"), expected, "afresh with servers that have nothing to store")
    shutil.rmtree(folder)


def timed(name, test, expected):
    begun = time.monotonic()
    found = test(expected)
    print(f"ok {name} ({time.monotonic() - begun:.0f} s)", flush=True)
    return found


def main():
    global EXPECTED_TABLE
    folder = fresh()
    code, said = run(folder, (1, 0, 0), restart=False)
    assert code == 0, said
    EXPECTED_TABLE = table(Path(folder, "out"))
    expected = read_all(Path(folder, "out"))
    shutil.rmtree(folder)
    stories = {f"story {number}": functools.partial(story, number) for number in range(STORIES)}
    tests = {name: test for name, test in globals().items() if name.startswith("test_")} | stories
    if len(sys.argv) > 1:
        tests = {name: test for name, test in tests.items() if name in sys.argv}
    tasks = [functools.partial(timed, name, test, expected) for name, test in tests.items()]
    kills = sum(found or 0 for found in side_by_side(tasks, COMPUTING))
    if len(sys.argv) == 1:
        print(f"{STORIES} runs, {kills} attempts cut short; by points: {reached}")
        assert kills >= STORIES


if __name__ == "__main__":
    main()
