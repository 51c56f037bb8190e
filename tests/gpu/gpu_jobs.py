"""Jobs of several ranks on GPUs, for the tests of this folder."""

import os
import subprocess
import sys
import tempfile
import time

QUORATE = os.environ["QUORATE"]
SKIPPED = 77


def finish(command: list[str], patience_s: float = 120.0) -> tuple[int | None, str, str, float]:
    """Exit code (None: it hung and was killed), standard output, standard error, seconds. Short sleeps are counted
    instead of the clock, which goes on while a virtual machine is suspended."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        job = subprocess.Popen(command, stdout=output, stderr=errors, stdin=subprocess.DEVNULL)
        looks = 0
        while job.poll() is None and looks * 0.02 < patience_s:
            time.sleep(0.02)
            looks += 1
        code = job.poll()
        if code is None:
            job.kill()
            job.wait()
        output.seek(0)
        errors.seek(0)
        return code, output.read(), errors.read(), looks * 0.02


def arguments(settings: dict[str, str]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def job(settings: dict[str, str], ranks: int = 1, fault: str = "") -> list[str]:
    """The command of a job with `ranks` compute ranks and, unless there is only one, an I/O rank before them. fault: of
    the last rank (base/fault.h)."""
    program = [QUORATE, "run", "deck.yml", *arguments(settings)]
    faulty = ["env", f"QUORATE_FAULT={fault}"] if fault else []
    if ranks == 1:
        return faulty + program
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *program]
    return [*command, ":", "-n", "1", *faulty, *program]


def causes(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if "quorate: error:" in line]


def count_gpus() -> int:
    """As many as jobs may use; ends the test as skipped where there is none."""
    settings = {"compute.backend": "cuda", "agents.count": "1000", "run.steps": "1", "output.directory": "probe"}
    code, _, errors, _ = finish(job(settings))
    if code != 0:
        print(f"skipped, there is no GPU to test: {' '.join(causes(errors))}")
        sys.exit(SKIPPED)
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        return len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 1
    return sum(line.startswith("GPU ") for line in listed.splitlines())
