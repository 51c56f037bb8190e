"""Tiers that fail while a run goes on, and checkpoints that a restart must take or refuse.

Disks fail by QUORATE_FAULT (base/fault.h) or for real where a user can make them: a file-size limit, a directory that is a
file, one that is removed. Whatever happens, a run ends in time, with the undisturbed answer or a message and an exit code.
"""

import functools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "support"))
from side_by_side import COMPUTING, side_by_side

QUORATE = os.environ["QUORATE"]
PATIENCE_S = 150  # disks that others keep busy have been seen to take a minute for one fsync
DECK = """
run: {seed: 5, steps: 30, stop: steps}
agents: {count: 6000, options: 3}
model: {rule: neural, state_dim: 8, hidden: 8}
network: {kind: random_regular, degree: 4}
memory: {page: 16 KiB}
io: {timeout: 4 s}
checkpoint: {every: 3 steps, tiers: {nvme: {directory: nvme}, ssd: {directory: ssd}}}
output: {directory: out}
"""
ONE_TIER = ["--set", "checkpoint.tiers.ssd.directory="]
failures = 0


def check(truth, what):
    global failures
    print(f"{'ok    ' if truth else 'FAILED'}  {what}", flush=True)
    failures += not truth


class Folder:
    """A directory with the deck in it, and runs in there."""

    def __init__(self, deck=DECK):
        self.path = tempfile.mkdtemp()
        with open(self.at("deck.yml"), "w", encoding="utf-8") as out:
            out.write(deck)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def at(self, name):
        return os.path.join(self.path, name)

    def run(self, *options, ranks=1, fault=None, file_limit=None):
        # file_limit: bytes, from when the first checkpoint counts; before it, MPI has files of its own to make.
        """(exit code or None when it did not end, standard output and error, seconds)"""
        environment = dict(os.environ)
        environment.pop("QUORATE_FAULT", None)
        if fault:
            environment["QUORATE_FAULT"] = fault
        line = [QUORATE, "run", "deck.yml", "--set", "compute.threads=1", "--set", "compute.backend=cpu", *options]
        if ranks > 1:
            line = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] + line

        start = time.monotonic()
        with subprocess.Popen(line, cwd=self.path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True) as job:
            output = []
            reader = threading.Thread(target=lambda: output.append(job.stdout.read()))
            reader.start()
            for _ in range(int(PATIENCE_S / 0.01)):  # awake time: the machine may be suspended
                if job.poll() is not None:
                    break
                if file_limit and self.generations("nvme"):
                    resource.prlimit(job.pid, resource.RLIMIT_FSIZE, (file_limit, file_limit))
                    file_limit = None
                time.sleep(0.01)
            code = job.poll()
            if code is None:
                job.kill()
            reader.join()
        return code, output[0], time.monotonic() - start

    def generations(self, tier):
        names = os.listdir(self.at(tier)) if os.path.isdir(self.at(tier)) else []
        return sorted(int(name[11:19]) for name in names if name.endswith(".manifest"))


def answer(output):
    return re.findall(r"^(?:decision|state hash): .*$", output, re.MULTILINE)


def last_hash(output):
    found = re.findall(r"^state hash: (.*)$", output, re.MULTILINE)
    return found[-1] if found else None


def undisturbed():
    with Folder() as folder:
        code, output, _ = folder.run()
        assert code == 0, output
        check(folder.generations("nvme")[-1:] == folder.generations("ssd")[-1:] != [],
              "undisturbed: the newest generation is on both tiers")
        check("warning" not in output, "undisturbed: no warning")
        return answer(output)


def goes_on(name, expected, fault, tier_left, options=(), words=(), warnings=1):
    with Folder() as folder:
        code, output, _ = folder.run(*options, fault=fault)
        check(code == 0 and answer(output) == expected, f"{name}: ends with the same answer")
        check(output.count("warning") <= warnings and output.count("warning") >= min(warnings, 1),
              f"{name}: says so, {warnings} times at most")
        for word in words:
            check(word in output, f"{name}: says '{word}'")
        if tier_left:
            check(len(folder.generations(tier_left)) >= 1, f"{name}: generations on {tier_left}")
            tiers = ["--set", f"checkpoint.tiers.{'ssd' if tier_left == 'nvme' else 'nvme'}.directory="]
            code, output, _ = folder.run("--restart", "auto", *tiers)
            check(code == 0 and answer(output) == expected, f"{name}: what is on {tier_left} can be gone on from")
        else:
            check(folder.generations("nvme") + folder.generations("ssd") == [], f"{name}: no generation counts")
        if code != 0 or answer(output) != expected:
            print(output)


FAILING_TIERS = [
    # What hangs has to be waited for.
    functools.partial(goes_on, "fsync hangs", fault="checkpoint.fsync=nvme:hang@2", tier_left="ssd", warnings=2),
    functools.partial(goes_on, "full disk", fault="checkpoint.write=nvme:ENOSPC@4+", tier_left="ssd",
                      words=["No space left"]),
    functools.partial(goes_on, "full when it gets its name", fault="checkpoint.rename=nvme:ENOSPC@2+", tier_left="ssd",
                      words=["No space left"]),
    functools.partial(goes_on, "read-only", fault="checkpoint.begin=nvme:EROFS@1+", tier_left="ssd", words=["ead-only"]),
    functools.partial(goes_on, "fsync fails once", fault="checkpoint.fsync=nvme:EIO@2", tier_left="nvme",
                      words=["tried again"]),
    functools.partial(goes_on, "fsync fails always", fault="checkpoint.fsync=nvme:EIO@1+", tier_left="ssd",
                      words=["not used any more"], warnings=2),
    functools.partial(goes_on, "fsync is slow", fault="checkpoint.fsync:slow@1+", tier_left="nvme", warnings=0),
    functools.partial(goes_on, "second tier full", fault="checkpoint.write=ssd:ENOSPC@3+", tier_left="nvme",
                      words=["tier ssd"]),
    functools.partial(goes_on, "manifest cannot be written", fault="checkpoint.manifest=nvme:EIO@1+", tier_left="ssd",
                      warnings=2),
    functools.partial(goes_on, "no tier left", fault="checkpoint.write:ENOSPC@1+", tier_left=None, words=["unprotected"],
                      warnings=3),
]


def required(_):
    with Folder() as folder:
        code, output, _ = folder.run("--set", "checkpoint.required=true", fault="checkpoint.write:ENOSPC@1+")
        check(code in (3, 4) and "checkpoint.required" in output, "required: stops, and says why")


def a_file_for_a_directory(expected):
    with Folder() as folder:
        with open(folder.at("nvme"), "w", encoding="utf-8"):
            pass
        code, output, _ = folder.run()
        check(code == 0 and answer(output) == expected and "nvme" in output, "the directory is a file: goes on")


def file_size_limit(_):
    """EFBIG for real, from the middle of the run on."""
    options = ["--set", "run.steps=6000", "--set", "checkpoint.every=20 steps", "--set", "output.series_every=never"]
    with Folder() as folder:
        _, output, _ = folder.run(*options)
        expected = answer(output)
    with Folder() as folder:
        code, output, _ = folder.run(*options, file_limit=20000)
        check(code == 0 and answer(output) == expected, "a file-size limit: ends with the same answer")
        check("unprotected" in output and "File too large" in output, "a file-size limit: says so")
        code, output, _ = folder.run(*options, "--restart", "auto")
        check(code == 0 and answer(output) == expected, "a file-size limit: what was written before it is good")


def summary_counts(expected):
    with Folder() as folder:
        code, output, _ = folder.run(fault="checkpoint.write=nvme:ENOSPC@4+")
        with open(folder.at("out/summary.json"), encoding="utf-8") as file:
            told = json.load(file)["checkpoints"]
        nvme, ssd = told["tiers"]["nvme"], told["tiers"]["ssd"]
        check(code == 0 and answer(output) == expected and nvme["failed"] == 1 and nvme["given_up"] and
              ssd["failed"] == 0 and ssd["committed"] > 0 and not told["unprotected"], "the summary counts failures by tier")


def vanishing_directory(expected):
    """Removed in the middle of a run, with all that is in it."""
    with Folder() as folder:
        stop = threading.Event()

        def remove():
            while not stop.is_set():
                if len(folder.generations("nvme")) >= 2:
                    shutil.rmtree(folder.at("nvme"), ignore_errors=True)
                    return
                time.sleep(0.001)

        thread = threading.Thread(target=remove)
        thread.start()
        code, output, _ = folder.run(fault="checkpoint.fsync:slow@1+")
        stop.set()
        thread.join()
        check(code == 0 and answer(output) == expected, "a tier vanishes: the same answer")
        code, output, _ = folder.run("--restart", "auto")
        check(code == 0 and answer(output) == expected, "a tier vanished: gone on from what is left")


def refusals(expected):
    with Folder() as folder:
        code, output, _ = folder.run("--restart", "auto", "--set", "run.steps=12")
        check(code == 0 and "beginning afresh" in output, "no checkpoint yet: begins afresh and says so")
        half = last_hash(output)
        code, output, _ = folder.run("--restart", "auto", "--set", "run.steps=12")
        check(code == 0 and last_hash(output) == half, "restart of a run that is complete: the same hash")
        code, output, _ = folder.run()
        check(code == 3 and "--restart auto" in output, "a new run over old checkpoints: refused, with the way out")
        code, output, _ = folder.run("--restart", "auto", "--set", "run.seed=6", "--set", "model.dt=0.2")
        check(code == 2 and "run.seed: 5, not 6" in output and "model.dt" in output and "agents" not in
              output.split("\n", 1)[1], "another deck: refused with the keys that differ")
        code, output, _ = folder.run("--restart", "nowhere")
        check(code == 2 and "nowhere" in output, "a directory that is not there: refused")
        os.mkdir(folder.at("empty"))
        code, output, _ = folder.run("--restart", "empty")
        check(code == 2 and "empty" in output, "a directory without checkpoints: refused")
        code, output, _ = folder.run("--restart", "ssd", "--set", "run.steps=30", "--set", "memory.page=64 KiB")
        check(code == 0 and answer(output) == expected, "more steps, other pages, from a named tier: the answer")
    with Folder() as folder:
        folder.run("--set", "run.steps=12", "--set", "checkpoint.keep=4")
        newest = folder.generations("nvme")[-1]
        older = folder.generations("nvme")[-2]
        name = f"nvme/generation-{older:08d}.manifest"
        code, output, _ = folder.run("--restart", name)
        check(code == 0 and f"restart: checkpoint {older}," in output and answer(output) == expected,
              "a named generation: taken, though there are newer ones")
        check(newest > older, "there was a newer one")
    with Folder() as folder:
        folder.run("--set", "run.steps=12")
        for tier in ("nvme", "ssd"):
            for generation in folder.generations(tier):
                os.truncate(folder.at(f"{tier}/generation-{generation:08d}.s000.h5"), 100)
        code, output, _ = folder.run("--restart", "auto")
        check(code == 4 and "quorate info" in output, "nothing can be used: refused, nothing begun afresh")
    with Folder() as folder:
        folder.run("--set", "run.steps=12")
        for tier in ("nvme", "ssd"):
            os.truncate(folder.at(f"{tier}/generation-{folder.generations(tier)[-1]:08d}.s000.h5"), 100)
        code, output, _ = folder.run("--restart", "auto")
        check(code == 0 and answer(output) == expected and "cannot be used" in output,
              "the newest is damaged on every tier: the one before is taken, and the bad one named")


def other_numbers_of_ranks(expected):
    layouts = {"P = 4": 4, "P/2": 2, "2P": 8, "a prime": 5, "one": 1}
    with Folder() as folder:
        code, output, _ = folder.run("--set", "run.steps=15", ranks=4)
        check(code == 0, "P = 4 writes")
        for name, ranks in layouts.items():
            for tier in ("nvme", "ssd"):
                shutil.rmtree(folder.at("out"), ignore_errors=True)
                code, output, _ = folder.run("--restart", tier, "--set", "checkpoint.tiers.nvme.directory=other",
                                             "--set", "checkpoint.tiers.ssd.directory=", ranks=ranks)
                check(code == 0 and answer(output) == expected, f"restart on {name} ranks from {tier}")
                shutil.rmtree(folder.at("other"), ignore_errors=True)


NODES = ["--set", "comm.ranks_per_node=2", "--set", "checkpoint.tiers.nvme.directory=disk{node}/nvme", "--set",
         "checkpoint.tiers.ssd.directory=", "--set", "checkpoint.replicas=1", "--set", "checkpoint.consistency=all"]


def lost_nodes(expected, lost, recovers):
    """Three emulated nodes, each with a disk of its own and a copy of its neighbour's share."""
    with Folder() as folder:
        code, output, _ = folder.run(*NODES, "--set", "run.steps=15", ranks=6)
        check(code == 0, f"nodes {lost}: written with replicas")
        for node in lost:
            shutil.rmtree(folder.at(f"disk{node}"))
        code, output, _ = folder.run(*NODES, "--restart", "auto", ranks=6)
        if recovers:
            check(code == 0 and answer(output) == expected, f"node {lost} gone with its disk: rebuilt from replicas")
            if code != 0:
                print(output)
        else:
            check(code == 4 and "lost" in output, f"nodes {lost} gone: refused, the lost share named")


LOST_NODES = [functools.partial(lost_nodes, lost=lost, recovers=recovers) for lost, recovers in
              (([0], True), ([1], True), ([2], True), ([0, 1], False), ([1, 2], False), ([0, 2], False))]


def main():
    expected = undisturbed()
    parts = [other_numbers_of_ranks, refusals, file_size_limit, *FAILING_TIERS, required, a_file_for_a_directory,
             summary_counts, vanishing_directory, *LOST_NODES]
    side_by_side([functools.partial(part, expected) for part in parts], COMPUTING)
    sys.exit(1 if failures else 0)


main()
