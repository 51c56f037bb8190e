"""What is told of pages while they move and afterwards: where they truly are, on all ranks, also when a disk is full."""

import json
import os
import re
import subprocess
import tempfile
import time

QUORATE = os.environ["QUORATE"]
PAGES = 32

# 32 pages of 32 KiB; by rank: 2 in memory, and some of them on each disk.
DECK = """
run: {seed: 5, steps: 8, stop: steps, progress_every: 1 ms}
agents: {count: 16384, options: 3}
model: {rule: neural, state_dim: 16, hidden: 8}
network: {kind: ring, degree: 4}
compute: {backend: cpu, threads: 1}
memory:
  page: 32 KiB
  tiers:
    cpu: {capacity: 128 KiB}
    nvme: {directory: pages/nvme, capacity: 300 KiB, compression: none}
    ssd: {directory: pages/ssd, capacity: 600 KiB}
    hdd: {directory: pages/hdd}
output: {directory: out}
"""


def run(folder, ranks=1, fault="", deck=DECK, more=(), counts=True):
    """Output, lines of metrics, and the summary, of which what is said of pages adds up."""
    with open(os.path.join(folder, "deck.yml"), "w", encoding="utf-8") as out:
        out.write(deck)
    environment = {**os.environ, "QUORATE_FAULT": fault} if fault else os.environ
    start = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks > 1 else []
    done = subprocess.run([*start, QUORATE, "run", "deck.yml", *more], cwd=folder, env=environment, capture_output=True,
                          text=True, timeout=600, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    with open(os.path.join(folder, "out", "metrics.jsonl"), encoding="utf-8") as lines:
        metrics = [json.loads(line) for line in lines]
    with open(os.path.join(folder, "out", "summary.json"), encoding="utf-8") as text:
        summary = json.load(text)
    for line in [*metrics, summary]:
        paging = line["paging"]
        assert sum(paging["pages_in"].values()) + paging["pages_leaving"] == paging["pages"] == PAGES, line
        assert not counts or paging["updated"] == PAGES * line.get("step", line.get("steps")), line
    return done.stdout, metrics, summary


def links(paging):
    return {(link["from"], link["to"]): link for link in paging["links"]}


def everything_is_counted():
    """Of pages that go each way, the links, the files and the table say the same."""
    with tempfile.TemporaryDirectory() as folder:
        output, _, summary = run(folder)
    paging = summary["paging"]
    assert paging["pages_leaving"] == paging["pages_coming"] == 0, paging
    by_link = links(paging)
    for tier, disk in paging["disks"].items():
        came = sum(link["pages"] for ends, link in by_link.items() if ends[1] == tier)
        left = sum(link["pages"] for ends, link in by_link.items() if ends[0] == tier)
        assert disk["pages_written"] + disk["pages_sunk_into_it"] == came > 0, (tier, paging)
        assert disk["written_raw_bytes"] == came * 32768 and disk["written_stored_bytes"] > 0, (tier, paging)
        assert came - left <= paging["pages_in"][tier] and disk["read_raw_bytes"] > 0, (tier, paging)
        assert re.search(rf"^  {tier} +{came * 32768 / 1e6:.3f} ", output, re.MULTILINE), (tier, output)
    for ends, link in by_link.items():
        assert re.search(rf"^  {ends[0]} to {ends[1]} +{link['pages']} ", output, re.MULTILINE), (ends, output)
        assert 0 < link["p50_us"] <= link["p99_us"] <= link["max_us"], link


def sinks_are_seen():
    """Pages that only sink from disk to disk have rows of their own."""
    with tempfile.TemporaryDirectory() as folder:
        deck = DECK.replace("hdd: {directory: pages/hdd}", "hdd: {directory: pages/hdd}\n  high: 0.6\n  low: 0.3")
        output, _, summary = run(folder, deck=deck)
    paging = summary["paging"]
    moved = links(paging)
    sunk = sum(link["pages"] for ends, link in moved.items() if ends in (("nvme", "ssd"), ("ssd", "hdd"), ("nvme", "hdd")))
    assert sunk > 0 and sunk == sum(disk["pages_sunk_into_it"] for disk in paging["disks"].values()), paging
    assert re.search(r"^  nvme to \w+ +\d+ ", output, re.MULTILINE), output


def full_disk_holds_nothing():
    """Pages that a full disk does not take are where they went instead, and nowhere else."""
    with tempfile.TemporaryDirectory() as folder:
        output, metrics, summary = run(folder, fault="pages.write=pages/nvme:ENOSPC@1+")
    for line in [*metrics, summary]:
        assert line["paging"]["pages_in"]["nvme"] == 0, line
        assert all("nvme" not in ends for ends in links(line["paging"])), line
    assert re.search(r"^step \d+ of 8, .* pages: cpu 4, nvme 0, ", output, re.MULTILINE), output
    paging = summary["paging"]
    assert paging["disks"]["nvme"]["pages_sent_further_down"] > 0 and paging["disks"]["nvme"]["pages_written"] == 0, paging
    assert links(paging)[("cpu", "ssd")]["pages"] > 0, paging


def all_ranks_count():
    """Three ranks, two of which compute: metrics have the pages of both, as the summary has."""
    with tempfile.TemporaryDirectory() as folder:
        _, metrics, summary = run(folder, ranks=3)
    assert summary["compute_ranks"] == 2, summary
    before, last = None, links(summary["paging"])
    for line in metrics:
        now = links(line["paging"])
        for ends, link in (before or {}).items():
            assert link["pages"] <= now[ends]["pages"] <= last[ends]["pages"], (ends, line)
        before = now
    written = [sum(disk["pages_written"] for disk in line["paging"]["disks"].values()) for line in [*metrics, summary]]
    assert written == sorted(written) and written[0] >= PAGES - 8 and written[-1] > 8 * (PAGES - 8) // 2, written


def long_steps_are_told_of():
    """Disks so slow that a step, and the state hash, take seconds: lines in their midst say how far they are."""
    with tempfile.TemporaryDirectory() as folder:
        output, _, _ = run(folder, fault="pages.read:slow@1+", more=["--set", "run.steps=2", "--set", "io.threads=1"])
    for words in (r"step 2 of 2: \d+\.\d % done, pages: cpu \d+, nvme \d+, ssd \d+, hdd \d+, \d+ coming",
                  r"hash of the states: \d+\.\d % done, pages: cpu 4, "):
        assert re.search(rf"^{words}", output, re.MULTILINE), (words, output)


def checkpoints_add_up():
    """What they kept the steps from is their line in the table of times, and all that went is counted."""
    with tempfile.TemporaryDirectory() as folder:
        output, _, summary = run(folder, more=["--set", "checkpoint.every=1 steps"])
    kept = re.search(r"checkpoints kept the step loop for (\S+) s,", output)[1]
    assert re.search(rf"^  checkpoints +{kept} ", output, re.MULTILINE), output
    assert re.search(r"^  last checkpoints written +\d", output, re.MULTILINE), output
    nvme = summary["checkpoints"]["tiers"]["nvme"]
    assert nvme["committed"] >= 3 and nvme["retired"] == nvme["committed"] - 2, nvme


def answer(output):
    return re.findall(r"^(?:decision|state hash): .*$", output, re.MULTILINE)


def ends_are_final():
    """A run that has ended and is started again fills no tier, and says what it came to. With more steps it goes on; with
    results of another run in the place of its own it finds out again."""
    again = ["--set", "checkpoint.every=4 steps", "--restart", "auto"]
    nothing = "nothing was left to do"
    with tempfile.TemporaryDirectory() as folder:
        results = os.path.join(folder, "out", "summary.json")
        for ranks in (1, 3):
            first, _, ended = run(folder, ranks, more=again)
            assert (nothing in first) == (ranks > 1), first
            before = os.stat(results).st_mtime_ns
            output, _, summary = run(folder, ranks, more=again)
            assert nothing in output and answer(output) == answer(first) and summary == ended, output
            assert os.stat(results).st_mtime_ns == before and "where the time went" not in output, output
        output, _, summary = run(folder, 1, more=[*again, "--set", "run.steps=10"], counts=False)
        assert nothing not in output and summary["steps"] == 10 and summary["began_at_step"] == 8, output
        expected = answer(output)
        with open(results, "w", encoding="utf-8") as out:
            json.dump({**summary, "run_id": "another"}, out)
        output, _, _ = run(folder, 1, more=[*again, "--set", "run.steps=10"], counts=False)
        assert nothing not in output and answer(output) == expected, output


def info(path):
    done = subprocess.run([QUORATE, "info", path], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def page_files_are_known():
    """`quorate info` of directories with page files: of a run that goes on, of one that was killed, and of one that ended."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "deck.yml"), "w", encoding="utf-8") as out:
            out.write(DECK)
        job = subprocess.Popen([QUORATE, "run", "deck.yml"], cwd=folder, stdout=subprocess.DEVNULL,
                               env={**os.environ, "QUORATE_FAULT": "pages.read:slow@1+"})
        pages = os.path.join(folder, "pages", "nvme")
        for _ in range(600):
            if os.path.isdir(pages) and os.listdir(pages) and os.path.getsize(os.path.join(pages, os.listdir(pages)[0])):
                break
            time.sleep(0.05)
        said = info(pages)
        assert said[0] == 0 and f"process {job.pid} on" in said[1] and "in use by its run" in said[1], said
        job.kill()
        job.wait()
        said = info(os.path.join(pages, os.listdir(pages)[0]))
        assert said[0] == 0 and "tier       nvme" in said[1] and "stale: its run is gone" in said[1], said
        os.remove(os.path.join(pages, os.listdir(pages)[0]))
        said = info(pages)
        assert said[0] == 2 and "no checkpoints and no page files" in said[2], said


def hashes_are_the_same():
    """Of several blocks of agents, on one rank or more, in pages or not: what reads and hashes them has several ways."""
    deck = DECK.replace("16384", "300000").replace("32 KiB", "256 KiB").replace("state_dim: 16", "state_dim: 8")
    paged = ["--set", "memory.tiers.cpu.capacity=2 MiB", "--set", "memory.tiers.nvme.capacity=3 MiB",
             "--set", "memory.tiers.ssd.capacity=2 MiB"]
    ways = [(1, ["--set", "memory.tiers.cpu.capacity=64 MiB"]), (1, [*paged, "--set", "compute.threads=3"]),
            (3, [*paged, "--set", "io.ranks_per_node=0", "--set", "compute.threads=2"]), (4, paged)]
    hashes = []
    for ranks, more in ways:
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "deck.yml"), "w", encoding="utf-8") as out:
                out.write(deck)
            start = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks > 1 else []
            done = subprocess.run([*start, QUORATE, "run", "deck.yml", "--set", "run.steps=1", *more], cwd=folder,
                                  capture_output=True, text=True, timeout=600, check=False)
            assert done.returncode == 0, (ranks, more, done)
            hashes.append(re.search(r"^state hash: (\w+)$", done.stdout, re.MULTILINE)[1])
    assert len(set(hashes)) == 1, hashes


def main():
    hashes_are_the_same()
    page_files_are_known()
    ends_are_final()
    long_steps_are_told_of()
    checkpoints_add_up()
    everything_is_counted()
    sinks_are_seen()
    full_disk_holds_nothing()
    all_ranks_count()
    print("what is told of pages is so")


if __name__ == "__main__":
    main()
