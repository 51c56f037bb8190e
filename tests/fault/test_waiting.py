"""Who waits for whom while checkpoints are written, and for how long: servers, compute ranks, and the end of a run.

Only what stands still is given up: not a server that is done and waits for a slow one, but a disk, a server, and at the end
of a run copies on their way to other nodes.
"""

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
PATIENCE_S = 60
DECK = """
run: {seed: 4, steps: 3, stop: steps}
agents: {count: 6000, options: 3}
model: {rule: neural, state_dim: 8, hidden: 8}
network: {kind: random_regular, degree: 4}
memory: {page: 4 KiB}
checkpoint: {every: 3 steps, tiers: {nvme: {directory: "disk{node}"}}}
comm: {ranks_per_node: 2}
output: {directory: out, series_every: never}
"""


def start(*sets, ranks=1, fault=None):
    environment = {key: value for key, value in os.environ.items() if key != "QUORATE_FAULT"}
    if fault is not None:
        environment["QUORATE_FAULT"] = fault
    line = [QUORATE, "run", "deck.yml"]
    for value in ("compute.threads=1", "compute.backend=cpu", *sets):
        line += ["--set", value]
    if ranks > 1:
        line = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] + line
    with open("log", "w", encoding="utf-8") as log:
        return subprocess.Popen(line, env=environment, stdout=log, stderr=subprocess.STDOUT)


def said():
    return Path("log").read_text(encoding="utf-8")


def wait(job, truth):
    """In awake time: a virtual machine may be suspended."""
    for _ in range(int(PATIENCE_S / 0.005)):
        if truth():
            return
        time.sleep(0.005)
    job.kill()
    raise AssertionError(f"waited in vain:\n{said()}")


def run(*sets, **how):
    job = start(*sets, **how)
    wait(job, lambda: job.poll() is not None)
    return job.returncode, said()


def generations(directory):
    return sorted(int(path.name[11:19]) for path in Path(directory).glob("*.manifest"))


def io_rank_of(job):
    """The process of world rank 0, which serves."""
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            if parent == job.pid and b"OMPI_COMM_WORLD_RANK=0\0" in Path(f"/proc/{entry}/environ").read_bytes():
                return int(entry)
        except (OSError, ValueError, IndexError):
            continue
    raise AssertionError("no I/O rank")


def test_a_server_that_is_done_waits_for_a_slow_one():
    """Longer than io.timeout, and then commits in its own time; the slow one gets ahead all the while."""
    code, text = run("io.timeout=3 s", "agents.count=12000", ranks=4,
                     fault="checkpoint.write=disk1:slow@1+,checkpoint.manifest=disk0:slow")
    assert code == 0 and "warning" not in text, text
    assert generations("disk0") == generations("disk1") == [1], text
    assert re.search(r"^  nvme +1 +0 ", text, re.MULTILINE), text


def test_a_disk_that_hangs_is_told_of_before_anybody_waits_in_vain():
    """By the server that knows where it hangs, in half the time after which others give up."""
    code, text = run("io.timeout=3 s", "checkpoint.tiers.ssd.directory=second", fault="checkpoint.fsync=disk0:hang@1+")
    assert code == 0 and len(generations("second")) == 1, text
    assert re.search(r"on tier nvme failed: disk0: does not answer: a write or sync has taken 1\.[5-9]", text), text
    assert "has not got ahead" not in text, text


def test_a_server_that_stands_still_is_told_of_with_its_directory():
    job = start("io.timeout=3 s", "run.steps=100000000", "checkpoint.every=20 steps", ranks=2,
                fault="checkpoint.write=disk0:hang@3")
    wait(job, lambda: any(Path("disk0").glob(".generation*")) or job.poll() is not None)
    server = io_rank_of(job)
    os.kill(server, signal.SIGSTOP)  # before it says by itself that its disk hangs
    wait(job, lambda: "on tier nvme failed" in said() or job.poll() is not None)
    os.kill(server, signal.SIGKILL)
    wait(job, lambda: job.poll() is not None)
    text = said()
    assert "tier nvme failed: disk0: I/O server 0 on node 0 has not got ahead for 3 s; it is tried again" in text, text


def test_copies_that_get_ahead_are_waited_for():
    """Both nodes' copies take longer than io.timeout, one piece after another, and the commit needs them."""
    code, text = run("io.timeout=2 s", "run.steps=1", "agents.count=450000", "model.state_dim=64", "network.kind=ring",
                     "checkpoint.replicas=1", "checkpoint.consistency=all", "memory.page=1 MiB", ranks=4,
                     fault="checkpoint.replica_read:slow@1+,checkpoint.replica:slow@1+")
    assert code == 0 and "warning" not in text, text
    assert generations("disk0") == generations("disk1") == [1], text


def test_copies_do_not_keep_the_end_waiting():
    """The checkpoint counts when the disk that its copies are read from hangs: at the end they are given io.timeout."""
    code, text = run("io.timeout=2 s", "run.steps=1", "agents.count=200000", "model.state_dim=64", "network.kind=ring",
                     "checkpoint.replicas=1", "checkpoint.consistency=one", "memory.page=1 MiB", ranks=4,
                     fault="checkpoint.replica_read=disk0:hang@6,checkpoint.replica_read=disk0:slow@1+")
    assert code == 0 and "failed:" not in text, text
    assert generations("disk0") == generations("disk1") == [1], text
    assert not list(Path("disk1").glob("*.s000.replica.h5")), os.listdir("disk1")
    assert list(Path("disk0").glob("*.s001.replica.h5")), os.listdir("disk0")


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
