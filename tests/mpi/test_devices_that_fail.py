"""Ranks that wait for each other's devices: one that fails ends the whole job within seconds, with its cause and no other,
whether the others can be told of it or not. A library that only pretends to have devices stands in for the CUDA module."""

import os
import shutil
import subprocess
import sys
import tempfile
import time

SOURCE_DIR = os.environ["SOURCE_DIR"]
DECK = """
run: {seed: 2, stop: steps, steps: 100000000}
agents: {count: 6000}
compute: {backend: cuda}
comm: {exchange: nccl}
output: {directory: out, overwrite: true, series_every: 1000 steps}
"""
WITHIN_S = 10.0
PATIENCE_S = 60.0


def finish(faults: list[str]) -> tuple[int | None, str, float]:
    """An I/O rank, then a compute rank for each fault. Sleeps are counted, for clocks go on in machines that are suspended."""
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", "1", "./quorate", "run", "deck.yml"]
    for fault in faults:
        command += [":", "-n", "1", "env", f"QUORATE_FAULT={fault}", "./quorate", "run", "deck.yml"]
    with tempfile.TemporaryFile("w+") as said:
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        looks = 0
        while job.poll() is None and looks * 0.02 < PATIENCE_S:
            time.sleep(0.02)
            looks += 1
        code = job.poll()
        job.kill()
        job.wait()
        said.seek(0)
        return code, said.read(), looks * 0.02


def check(what: str, faults: list[str], cause: str, orderly: bool = True) -> None:
    code, said, took = finish(faults)
    causes = [line for line in said.splitlines() if "quorate: error:" in line]
    if code != 4 or len(causes) != 1 or cause not in causes[0] or took > WITHIN_S:
        sys.exit(f"FAILED: {what}: exit code {code} after {took:.1f} s, causes {causes}\n{said}")
    if orderly and "MPI_ABORT" in said:
        sys.exit(f"FAILED: {what}: no orderly end\n{said}")
    print(f"ok: {what}: {took:.1f} s, {causes[0]}")


def main() -> None:
    shutil.copy(os.environ["QUORATE"], "quorate")
    source = os.path.join(SOURCE_DIR, "tests/mpi/devices_that_fail.c")
    include = [f"-I{SOURCE_DIR}/src", f"-I{SOURCE_DIR}/kernels"]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, *include, source, "-o", "libquorate_cuda.so"], check=True)
    with open("deck.yml", "w", encoding="utf-8") as deck:
        deck.write(DECK)
    waits = "device.wait:EIO@5"
    failed = "this device has failed"
    check("the last of three fails, the others hear of it", [waits, waits, "device.step:EIO@5"], failed)
    check("the first fails", ["device.step:EIO@5", waits, waits], failed)
    check("all fail at once", ["device.step:EIO@5"] * 3, failed)
    check("one fails when the others are through with the batch", ["", "", "device.step:EIO@5"], failed)
    check("others see a remote failure first", ["device.remote:EIO@5", "device.remote:EIO@5", "device.step:EIO@5"], failed)
    check("the others hear nothing", ["device.deaf:EIO@5", "device.deaf:EIO@5", "device.step:EIO@5"], failed, False)
    check("two fail, one hears nothing", ["device.step:EIO@5", "device.deaf:EIO@5", "device.step:EIO@5"], failed, False)
    joining = "device.joining:EIO"
    check("one cannot join, the others wait for it", [joining, joining, "device.join:EIO"], "this device joins nobody", False)
    check("two cannot join, one waits for them", [joining, "device.join:EIO", "device.join:EIO"], "this device joins nobody", False)
    check("nobody can join", ["device.join:EIO"] * 3, "this device joins nobody")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            main()
        finally:
            os.chdir("/")
