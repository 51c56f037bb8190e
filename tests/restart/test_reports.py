"""What a user is told of checkpoints: progress, the table at the end, summary.json, metrics.jsonl, and how to go on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUORATE = os.environ["QUORATE"]
PATIENCE_S = 120
PAGES = 12
DECK = f"""
run: {{seed: 2, steps: 100000000, stop: steps, progress_every: 0.05 s}}
agents: {{count: {PAGES * 65536}, options: 2}}
model: {{rule: voter}}
network: {{kind: ring}}
memory: {{page: 64 KiB}}
checkpoint: {{every: 20 steps, tiers: {{nvme: {{directory: fast}}, hdd: {{directory: slow}}}}}}
output: {{directory: out}}
"""


def start(ranks, *arguments, fault=None):
    environment = {key: value for key, value in os.environ.items() if key != "QUORATE_FAULT"}
    if fault is not None:
        environment["QUORATE_FAULT"] = fault
    line = [QUORATE, "run", "deck.yml", "--set", "compute.backend=cpu", *arguments]
    if ranks > 1:
        line = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *line]
    with open("log", "w", encoding="utf-8") as log:
        return subprocess.Popen(line, env=environment, stdout=log, stderr=subprocess.STDOUT)


def said():
    return Path("log").read_text(encoding="utf-8")


def wait_until(job, truth, what):
    for _ in range(int(PATIENCE_S / 0.05)):
        if truth():
            return
        assert job is None or job.poll() is None, f"ended before {what}:\n{said()}"
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come:\n{said()}")


def end(job):
    wait_until(None, lambda: job.poll() is not None, "the end")
    return job.returncode, said(), json.loads(Path("out/summary.json").read_text())


def newest(tier):
    return max((int(p.name[11:19]) for p in Path(tier).glob("*.manifest")), default=0)


def stop_when(job, truth, what):
    wait_until(job, truth, what)
    job.send_signal(signal.SIGUSR1)
    return end(job)


def check_tiers(text, summary, names):
    """The lines of the table and the summary tell the same."""
    for name in names:
        told = summary["checkpoints"]["tiers"][name]
        line = re.search(rf"^  {name} +(\d+) +(\d+) +(\d+) +([\d.]+) +([\d.]+) +([\d.-]+) +(\S+)", text, re.MULTILINE)
        assert line, (name, text)
        assert [int(line[i]) for i in (1, 2, 3)] == [told["committed"], told["failed"], told["retired"]], (line, told)
        assert abs(float(line[4]) - told["raw_bytes"] / 1e6) < 0.001, (line, told)
        assert abs(float(line[5]) - told["stored_bytes"] / 1e6) < 0.001, (line, told)
        assert told["raw_bytes"] % (PAGES * 65536) == 0, told
        if told["committed"] > 0:
            assert told["raw_bytes"] >= told["committed"] * PAGES * 65536 and told["write_bytes_per_s"] > 0, told
            assert abs(told["ratio"] - told["raw_bytes"] / told["stored_bytes"]) < 1e-6, told


def test_progress_shows_what_is_in_flight():
    job = start(1, fault="checkpoint.write:slow@1+")
    pattern = r"left, checkpoint (\d+): (\d+) of 12 pages to nvme"
    wait_until(job, lambda: len(set(re.findall(pattern, said()))) >= 1, "a line with pages in flight")
    code, text, summary = stop_when(job, lambda: newest("slow") >= 1, "a checkpoint on the second tier")
    assert code == 75, text
    assert all(0 <= int(done) < 12 for _, done in re.findall(pattern, text)), text
    check_tiers(text, summary, ["nvme", "hdd"])


def test_end_and_summary():
    job = start(3)
    code, text, summary = stop_when(job, lambda: newest("slow") >= 3, "three checkpoints")
    told = summary["checkpoints"]
    assert code == 75 and summary["resumable"] is True and summary["restarts"] == told["restarts"] == 0, summary
    stop = re.search(r"stopped by SIGUSR1 at step (\d+) with checkpoint (\d+); go on with --restart auto", text)
    assert stop and int(stop[1]) == summary["steps"] and int(stop[2]) == newest("fast"), text
    assert told["tiers"]["nvme"]["newest"] == newest("fast") and told["unprotected"] is False, told
    assert told["cuts"] >= 3 and told["copied_bytes"] == told["cuts"] * PAGES * 65536, told
    assert 0 < told["blocked_s"] < summary["elapsed_s"], told
    assert re.search(rf"kept the step loop for {told['blocked_s']:.3f} s, to copy .* in {told['cuts']} cuts", text), text
    check_tiers(text, summary, ["nvme", "hdd"])
    lines = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    committed = [line["checkpoints"]["tiers"]["nvme"]["committed"] for line in lines]
    assert committed == sorted(committed) and committed[-1] <= told["tiers"]["nvme"]["committed"], committed

    # Of the first attempt, what came after its last cut (waiting for disks) is not known to the second.
    manifest = Path(f"fast/generation-{newest('fast'):08d}.manifest").read_text()
    before = json.loads(manifest.rsplit("seal:", 1)[0])["elapsed_s"]
    assert 0 < before <= summary["elapsed_s"], (before, summary)
    job = start(2, "--restart", "auto", "--set", f"run.steps={summary['steps'] + 10}")
    code, text, summary = end(job)
    assert code == 0 and summary["restarts"] == summary["checkpoints"]["restarts"] == 1, (text, summary)
    assert summary["elapsed_s"] > before and "resumable" in summary and summary["resumable"] is False, summary
    assert "restarted 1 time; this attempt began at step" in text, text
    elapsed = [json.loads(line)["elapsed_s"] for line in Path("out/metrics.jsonl").read_text().splitlines()]
    assert elapsed == sorted(elapsed), elapsed


def test_a_run_without_protection_says_so():
    Path("fast").write_text("no directory")
    Path("slow").write_text("no directory")
    job = start(2)
    wait_until(job, lambda: "unprotected" in said(), "a warning")
    code, text, summary = stop_when(job, lambda: True, "")
    assert code == 0 and text.count("no tier is left") == 1, text  # nothing to go on from: not resumable
    assert "without a checkpoint of it, results are complete up to there" in text, text
    assert summary["resumable"] is False and summary["checkpoints"]["unprotected"] is True, summary
    assert summary["checkpoints"]["tiers"]["nvme"]["given_up"] is True, summary
    assert "the run ended unprotected" in text and "given up" in text, text


def main():
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            folder = tempfile.mkdtemp()
            os.chdir(folder)
            Path("deck.yml").write_text(DECK, encoding="utf-8")
            test()
            os.chdir("/")
            shutil.rmtree(folder)
            print("ok", name, flush=True)


if __name__ == "__main__":
    sys.exit(main())
