"""An error of CUDA or NCCL on one rank ends the whole job soon, with one cause and the right exit code; a GPU that is too
small is named with bytes and deck keys. Faults are made on demand (base/fault.h)."""

import os
import re
import sys
import tempfile

from gpu_jobs import causes, count_gpus, finish, job

WITHIN_S = 10.0
LONG = {
    "compute.backend": "cuda",
    "run.stop": "steps",
    "run.steps": "100000000",
    "output.series_every": "1000 steps",
    "output.overwrite": "true",
    "output.directory": "out",
}
LATTICE = {"network.kind": "lattice2d", "network.size": "[2000, 1000]"}
SMALL = {"network.kind": "complete", "agents.count": "10000"}
TIMEOUT = {"compute.timeout": "4 s"}
HANG_S = 4.0
BATCH_S = 0.1

failures = 0


def fail(what: str, why: str) -> None:
    global failures
    failures += 1
    print(f"FAILED: {what}: {why}")


def check(what: str, settings: dict[str, str], ranks: int, fault: str, code: int, cause: str, extra_s: float = 0.0) -> None:
    """What comes before the fault is timed by a run that ends in good order before it takes steps, and by the batches."""
    expected = 0.0
    if fault:
        good, _, errors, expected = finish(job(settings | {"run.steps": "1"}, ranks))
        if good != 0:
            fail(what, f"without the fault it ends with {good}\n{errors}")
            return
        expected += BATCH_S * int(fault.split("@")[1])
    got, output, errors, took = finish(job(settings, ranks, fault))
    said = causes(errors)
    if got is None:
        fail(what, f"hung\n{output}{errors}")
    elif got != code or len(said) != 1 or not re.search(cause, said[0]):
        fail(what, f"exit code {got} instead of {code}, causes {said} instead of one like '{cause}'\n{errors}")
    elif fault and took > expected + extra_s + WITHIN_S:
        fail(what, f"ended {took - expected:.1f} s after the fault")
    else:
        print(f"ok: {what}: {max(took - expected, 0.0):.1f} s, {said[0]}")


def main() -> None:
    gpus = count_gpus()
    ways = [("one rank, graphs", LATTICE, 1), ("one rank, many steps a launch", SMALL, 1),
            ("two ranks on one GPU, through the host", LATTICE | {"comm.exchange": "mpi-host"}, 2)]
    if gpus >= 2:
        ways.append(("two ranks, NCCL", LATTICE | {"comm.exchange": "nccl"}, 2))
    for name, settings, ranks in ways:
        for batch in (1, 12):
            check(f"{name}, a kernel fails in batch {batch}", LONG | settings, ranks, f"cuda.kernel:EIO@{batch}", 4, r"CUDA: .*(illegal|launch fail|unspecified)")
        check(f"{name}, a kernel hangs", LONG | settings | TIMEOUT, ranks, "cuda.stall:EIO@12", 4,
              r"GPU \d+ \(.*\) has not answered for 4 s", HANG_S)
    if gpus >= 2:
        check("two ranks, NCCL loses a link", LONG | LATTICE | {"comm.exchange": "nccl"}, 2, "nccl.link:EIO@12", 4, "NCCL: a link")
    large = LONG | {"model.rule": "neural", "model.state_dim": "1024", "agents.count": "1e8", "network.kind": "complete"}
    for ranks in (1, 2):
        check(f"too small a GPU and memory for states, {ranks} ranks", large, ranks, "", 3,
              r"compute rank 0: the states of a compute rank take \d+ bytes .*memory\.tiers hold \d+ .*\(gpu \d+.*model\.state_dim")
    check("too small a GPU for votes", LONG | {"agents.options": "2", "agents.count": "1e12", "network.kind": "complete"}, 1,
          "", 3, r"compute rank 0: GPU \d+ \(.*\) is too small .*\d+ bytes .* free.*agents\.count")
    print(f"{failures} failures, {gpus} GPUs")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        with open("deck.yml", "w", encoding="utf-8") as deck:
            deck.write("run: {seed: 3}\noutput: {directory: out}\n")
        try:
            main()
        finally:
            os.chdir("/")
