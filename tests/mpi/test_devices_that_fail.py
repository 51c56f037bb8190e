"""Ranks that wait for each other's devices: one that fails ends the whole job within seconds, with its cause and no other,
whether the others can be told of it or not. A library that only pretends to have devices stands in for the CUDA module."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time

SOURCE_DIR = os.environ["SOURCE_DIR"]
sys.path.insert(0, os.path.join(SOURCE_DIR, "tests", "support"))
from side_by_side import COMPUTING, side_by_side

DECK = """
run: {seed: 2, stop: steps, steps: 100000000}
agents: {count: 6000}
compute: {backend: cuda}
comm: {exchange: nccl}
output: {directory: out, overwrite: true, series_every: 1000 steps}
"""
WITHIN_S = 10.0
PATIENCE_S = 60.0


def finish(faults: list[str], settings: tuple[str, ...], preload: str) -> tuple[int | None, str, float]:
    """An I/O rank, then a compute rank for each fault. Sleeps are counted, for clocks go on in machines that are suspended."""
    program = [os.path.abspath("quorate"), "run", os.path.abspath("deck.yml")] + [word for setting in settings for word in ("--set", setting)]
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", "1", *program]
    for fault in faults:
        command += [":", "-n", "1", "env", f"QUORATE_FAULT={fault}", f"LD_PRELOAD={preload}", *program]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryDirectory(dir=".") as folder:
        job = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
        looks = 0
        while job.poll() is None and looks * 0.02 < PATIENCE_S:
            time.sleep(0.02)
            looks += 1
        code = job.poll()
        job.kill()
        job.wait()
        said.seek(0)
        return code, said.read(), looks * 0.02


def check(
    what: str,
    faults: list[str],
    cause: str,
    orderly: bool = True,
    settings: tuple[str, ...] = (),
    preload: str = "",
    expected: int = 4,
) -> None:
    code, said, took = finish(faults, settings, preload)
    causes = [line for line in said.splitlines() if "quorate: error:" in line]
    if code != expected or len(causes) != 1 or cause not in causes[0] or took > WITHIN_S:
        sys.exit(f"FAILED: {what}: exit code {code} after {took:.1f} s, causes {causes}\n{said}")
    if orderly and "MPI_ABORT" in said:
        sys.exit(f"FAILED: {what}: no orderly end\n{said}")
    print(f"ok: {what}: {took:.1f} s, {causes[0]}")


LATTICE = ("network.kind=lattice2d", "network.size=[40, 50]", "agents.count=auto", "model.rule=potts")
DEVICE_MEMORY = (*LATTICE, "comm.exchange=mpi-cuda")


def check_hashes(says_yes: str) -> None:
    """comm.exchange: mpi-cuda gives the same state as mpi-host."""
    hashes = {}
    for exchange, preload in (("mpi-host", ""), ("mpi-cuda", says_yes)):
        short = (*LATTICE, f"comm.exchange={exchange}", "run.steps=30")
        code, said, _ = finish(["", "", ""], short, preload)
        found = [line.split()[-1] for line in said.splitlines() if line.startswith("state hash:")]
        if code != 0 or len(found) != 1 or f"exchange {exchange}" not in said:
            sys.exit(f"FAILED: {exchange}: exit code {code}\n{said}")
        hashes[exchange] = found[0]
    if len(set(hashes.values())) != 1:
        sys.exit(f"FAILED: state hashes differ: {hashes}")
    print(f"ok: state hashes: {hashes}")


def make_says_yes() -> str:
    """An MPI library that says that it takes device memory."""
    with open("says_yes.c", "w", encoding="ascii") as source:
        source.write("int MPIX_Query_cuda_support(void);\nint MPIX_Query_cuda_support(void)\n{\n    return 1;\n}\n")
    subprocess.run(["cc", "-shared", "-fPIC", "says_yes.c", "-o", "says_yes.so"], check=True)
    return os.path.abspath("says_yes.so")


def main() -> None:
    shutil.copy(os.environ["QUORATE"], "quorate")
    source = os.path.join(SOURCE_DIR, "tests/mpi/devices_that_fail.c")
    include = [f"-I{SOURCE_DIR}/src", f"-I{SOURCE_DIR}/kernels"]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, *include, source, "-o", "libquorate_cuda.so"], check=True)
    says_yes = make_says_yes()
    with open("deck.yml", "w", encoding="utf-8") as deck:
        deck.write(DECK)
    later = functools.partial
    waits = "device.wait:EIO@5"
    failed = "this device has failed"
    joining = "device.joining:EIO"
    alone = "this device joins nobody"
    side_by_side([  # those that last longest first
        later(check, "the others hear nothing", ["device.deaf:EIO@5", "device.deaf:EIO@5", "device.step:EIO@5"], failed, False),
        later(check, "two fail, one hears nothing", ["device.step:EIO@5", "device.deaf:EIO@5", "device.step:EIO@5"], failed,
              False),
        later(check, "one cannot join, the others wait for it", [joining, joining, "device.join:EIO"], alone, False),
        later(check, "two cannot join, one waits for them", [joining, "device.join:EIO", "device.join:EIO"], alone, False),
        later(check, "the last of three fails, the others hear of it", [waits, waits, "device.step:EIO@5"], failed),
        later(check, "the first fails", ["device.step:EIO@5", waits, waits], failed),
        later(check, "all fail at once", ["device.step:EIO@5"] * 3, failed),
        later(check, "one fails when the others are through with the batch", ["", "", "device.step:EIO@5"], failed),
        later(check, "others see a remote failure first", ["device.remote:EIO@5", "device.remote:EIO@5", "device.step:EIO@5"],
              failed),
        later(check, "nobody can join", ["device.join:EIO"] * 3, alone),
        later(check, "MPI has no CUDA", ["", ""], "mpi-cuda needs an MPI library with CUDA support", True, DEVICE_MEMORY,
              expected=3),
        later(check, "a device fails between messages", ["", "device.pack:EIO@301+", ""], "this device packs nothing", True,
              DEVICE_MEMORY, says_yes),
        later(check_hashes, says_yes),
    ], COMPUTING)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            main()
        finally:
            os.chdir("/")
