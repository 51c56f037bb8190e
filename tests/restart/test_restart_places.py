"""Where a restart looks and what it leaves alone: named places, tiers that hold something else, limits of open files."""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUORATE = os.environ["QUORATE"]
PATIENCE_S = 60
DECK = """
run: {seed: 4, steps: 9, stop: steps}
agents: {count: 3000, options: 3}
model: {rule: neural, state_dim: 4, hidden: 8}
network: {kind: random_regular, degree: 4}
memory: {page: 4 KiB}
checkpoint: {every: 3 steps, tiers: {nvme: {directory: fast}}}
output: {directory: out}
"""
NODES = ["--set", "comm.ranks_per_node=1", "--set", "checkpoint.tiers.nvme.directory=disk{node}"]


def start(*options, ranks=1, fault=None, files=None):
    environment = {key: value for key, value in os.environ.items() if key != "QUORATE_FAULT"}
    if fault is not None:
        environment["QUORATE_FAULT"] = fault
    line = [QUORATE, "run", "deck.yml", "--set", "compute.threads=1", "--set", "compute.backend=cpu", *options]
    if ranks > 1:
        line = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] + line
    if files is not None:  # soft and hard limit of open files
        line = ["prlimit", f"--nofile={files[0]}:{files[1]}"] + line
    with open("log", "w", encoding="utf-8") as log:
        return subprocess.Popen(line, env=environment, stdout=log, stderr=subprocess.STDOUT)


def said():
    return Path("log").read_text(encoding="utf-8")


def run(*options, **how):
    """(exit code, what it said). Waits in awake time: a virtual machine may be suspended."""
    job = start(*options, **how)
    for _ in range(int(PATIENCE_S / 0.01)):
        if job.poll() is not None:
            return job.returncode, said()
        time.sleep(0.01)
    job.kill()
    raise AssertionError(f"did not end:\n{said()}")


def generations(directory):
    return sorted(int(path.name[11:19]) for path in Path(directory).glob("*.manifest"))


def answer(text):
    return re.findall(r"^(?:decision|state hash): .*$", text, re.MULTILINE)


def undisturbed(*options, ranks=1):
    """What a run of its own ends with."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy("deck.yml", folder)
        os.chdir(folder)
        code, text = run(*options, ranks=ranks)
        os.chdir(here)
    assert code == 0, text
    return answer(text)


def cut_at(*steps, options=(), ranks=1):
    """One attempt for each of these steps, with one checkpoint at its end: their numbers are 1, 2, ..."""
    for number, step in enumerate(steps):
        go_on = ["--restart", "auto"] if number > 0 else []
        code, text = run("--set", f"run.steps={step}", *options, *go_on, ranks=ranks)
        assert code == 0, text


def contents(directory, pattern="*"):
    return {path.name: path.read_bytes() for path in Path(directory).glob(pattern)}


def test_numbers_go_on_above_those_of_the_tiers():
    """From an older copy of a tier, while the tier itself has got further: nothing there is written over."""
    cut_at(3)
    shutil.copytree("fast", "copy")
    cut_at(6, 9, options=["--restart", "auto"])
    assert generations("copy") == [1] and generations("fast") == [2, 3], generations("fast")
    kept = contents("fast", "generation-00000003.*")
    code, text = run("--restart", "copy", "--set", "run.steps=6")
    assert code == 0 and "restart: checkpoint 1, step 3" in text, text
    assert generations("fast") == [3, 4], generations("fast")
    assert contents("fast", "generation-00000003.*") == kept
    code, text = run("--restart", "auto", "--set", "run.steps=9")
    assert code == 0 and "restart: checkpoint 4, step 6" in text, text
    assert answer(text) == undisturbed("--set", "run.steps=9"), text


def test_a_tier_of_another_run_is_refused():
    cut_at(3)
    os.rename("fast", "copy")
    shutil.rmtree("out")
    cut_at(3, 6, 9, options=["--set", "run.seed=5"])  # at the place where the deck's run will write
    shutil.rmtree("out")
    before = contents("fast")
    go_on = ["--restart", "copy", "--set", "run.steps=6"]
    code, text = run(*go_on)
    assert code == 3 and "fast: holds checkpoints of another run, up to step 9; choose another directory" in text, text
    assert contents("fast") == before and not Path("out").exists()
    code, text = run(*go_on, "--set", "checkpoint.tiers.nvme.directory=elsewhere")
    assert code == 0 and generations("elsewhere") == [2], (text, generations("elsewhere"))
    expected = answer(text)
    shutil.rmtree("out")
    code, text = run(*go_on, "--set", "output.overwrite=true")
    assert code == 0 and answer(text) == expected and generations("fast") == [3, 4], (text, generations("fast"))
    assert expected == undisturbed("--set", "run.steps=6")


def test_nodes_with_disks_of_two_runs():
    """The same deck twice, with other checkpoints under the same numbers: one node has the other run's disk. Its shares
    are whole, but of another step."""
    for name, steps in (("first", (3, 6)), ("second", (5, 10))):
        cut_at(*steps, options=[*NODES, "--set", "checkpoint.every=100 steps"], ranks=2)
        assert generations("disk0") == generations("disk1") == [1, 2], generations("disk1")
        os.mkdir(name)
        for part in ("disk0", "disk1", "out"):
            os.rename(part, Path(name, part))
    shutil.copytree("first/disk0", "disk0")
    shutil.copytree("second/disk1", "disk1")
    go_on = [*NODES, "--restart", "auto", "--set", "run.steps=12"]
    code, text = run(*go_on, ranks=2)
    assert code == 4 and "the share of I/O server 1 is lost" in text and not answer(text), (code, text)
    shutil.rmtree("disk1")
    os.rename("first/disk1", "disk1")
    code, text = run(*go_on, ranks=2)
    assert code == 0 and "restart: checkpoint 2, step 6" in text, text
    assert answer(text) == undisturbed("--set", "run.steps=12"), text


def test_too_many_open_files_are_no_loss():
    """A generation that cannot be opened just now is not passed over for an older one."""
    cut_at(3, 6, options=NODES, ranks=2)
    go_on = [*NODES, "--restart", "auto", "--set", "run.steps=9"]
    for ranks, fault in ((2, "checkpoint.open=disk1:EMFILE@1"), (1, "checkpoint.open=disk0:EMFILE@1")):
        code, text = run(*go_on, ranks=ranks, fault=fault)
        assert code == 3 and "Too many open files" in text and "is not lost, but cannot be read now" in text, (code, text)
        assert not answer(text) and "restart: checkpoint" not in text and text.count("error:") == 1, text
    code, text = run(*go_on, ranks=2)
    assert code == 0 and "restart: checkpoint 2, step 6" in text, text


def test_too_many_open_files_for_a_second_copy():
    """The same when a page of the first copy is damaged, and the second one cannot be opened."""
    two = ["--set", "checkpoint.tiers.ssd.directory=second"]
    cut_at(3, 6, options=two)
    assert generations("fast") == generations("second") == [1, 2]
    damaged = Path("fast/generation-00000002.s000.h5")
    content = bytearray(damaged.read_bytes())
    middle = len(content) // 2
    content[middle:middle + 64] = bytes(64)
    damaged.write_bytes(content)
    go_on = [*two, "--restart", "auto", "--set", "run.steps=9"]
    code, text = run(*go_on, fault="checkpoint.open=second:EMFILE@1")
    assert code == 3 and "Too many open files" in text and "is not lost, but cannot be read now" in text, (code, text)
    code, text = run(*go_on)
    assert code == 0 and "restart: checkpoint 2, step 6" in text, text


def test_as_many_open_files_as_the_system_allows():
    """A restart opens all shares side by side: the soft limit, often 1024, is not the last word."""
    cut_at(3)
    job = start("--restart", "auto", "--set", "run.steps=100000000", files=(100, 200))
    for _ in range(int(PATIENCE_S / 0.01)):
        if "restart: checkpoint" in said() or job.poll() is not None:
            break
        time.sleep(0.01)
    limits = resource.prlimit(job.pid, resource.RLIMIT_NOFILE) if job.poll() is None else None
    job.kill()
    job.wait()
    assert limits == (200, 200), (limits, said())


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
