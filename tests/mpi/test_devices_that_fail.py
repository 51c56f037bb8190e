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


def finish(faults: list[str], settings: tuple[str, ...], preload: str) -> tuple[int | None, str, float]:
    """An I/O rank, then a compute rank for each fault. Sleeps are counted, for clocks go on in machines that are suspended."""
    program = ["./quorate", "run", "deck.yml"] + [word for setting in settings for word in ("--set", setting)]
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", "1", *program]
    for fault in faults:
        command += [":", "-n", "1", "env", f"QUORATE_FAULT={fault}", f"LD_PRELOAD={preload}", *program]
    with tempfile.TemporaryFile("w+") as said:
        job = subprocess.Popen(command, stdout=said, stderr=said)
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


def check_device_memory() -> None:
    """comm.exchange: mpi-cuda, refused by this MPI, and then with one that says that it can."""
    lattice = ("network.kind=lattice2d", "network.size=[40, 50]", "agents.count=auto", "model.rule=potts")
    settings = (*lattice, "comm.exchange=mpi-cuda")
    check("MPI has no CUDA", ["", ""], "mpi-cuda needs an MPI library with CUDA support", True, settings, expected=3)
    with open("says_yes.c", "w", encoding="ascii") as source:
        source.write("int MPIX_Query_cuda_support(void);\nint MPIX_Query_cuda_support(void)\n{\n    return 1;\n}\n")
    subprocess.run(["cc", "-shared", "-fPIC", "says_yes.c", "-o", "says_yes.so"], check=True)
    says_yes = os.path.abspath("says_yes.so")
    hashes = {}
    for exchange, preload in (("mpi-host", ""), ("mpi-cuda", says_yes)):
        short = (*lattice, f"comm.exchange={exchange}", "run.steps=30")
        code, said, _ = finish(["", "", ""], short, preload)
        found = [line.split()[-1] for line in said.splitlines() if line.startswith("state hash:")]
        if code != 0 or len(found) != 1 or f"exchange {exchange}" not in said:
            sys.exit(f"FAILED: {exchange}: exit code {code}\n{said}")
        hashes[exchange] = found[0]
    if len(set(hashes.values())) != 1:
        sys.exit(f"FAILED: state hashes differ: {hashes}")
    print(f"ok: state hashes: {hashes}")
    cause = "this device packs nothing"
    check("a device fails between messages", ["", "device.pack:EIO@301+", ""], cause, True, settings, says_yes)


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
    check_device_memory()
    check("nobody can join", ["device.join:EIO"] * 3, "this device joins nobody")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            main()
        finally:
            os.chdir("/")
