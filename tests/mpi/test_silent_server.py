"""An I/O rank that stands still ends the job: with one cause, said once, however many compute ranks wait for it."""

import os
import signal
import subprocess
import sys
import tempfile
import time

QUORATE = os.environ["QUORATE"]
DECK = """
run: {seed: 2, stop: steps, steps: 100000000}
agents: {count: 60000}
io: {timeout: 4 s}
output: {directory: out, series_every: 1 steps, snapshot_every: 5 steps, flush_every: 0.1 s}
"""
PATIENCE_S = 60


def ranks_of(job: subprocess.Popen) -> dict[int, int]:
    """Process ids of the job's ranks, by rank."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            if parent != job.pid or os.readlink(f"/proc/{entry}/exe") != os.path.realpath(QUORATE):
                continue
            with open(f"/proc/{entry}/environ", "rb") as environ:
                for setting in environ.read().split(b"\0"):
                    if setting.startswith(b"OMPI_COMM_WORLD_RANK="):
                        found[int(setting.split(b"=")[1])] = int(entry)
        except (OSError, ValueError, IndexError):
            continue
    return found


def wait(job: subprocess.Popen, seconds: float, until) -> bool:
    """In short sleeps: a virtual machine may be suspended, its clock going on."""
    for _ in range(int(seconds / 0.05)):
        if until():
            return True
        time.sleep(0.05)
    job.kill()
    return False


def main() -> int:
    snapshots = os.path.join("out", "snapshots.h5")
    command = ["mpirun", "-n", "5", "--oversubscribe", "--bind-to", "none", QUORATE, "run", "deck.yml"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as job:
        if not wait(job, PATIENCE_S, lambda: os.path.exists(snapshots) or job.poll() is not None):
            sys.exit("FAILED: the job does not begin")
        os.kill(ranks_of(job)[0], signal.SIGSTOP)  # world rank 0 is the I/O rank; all four others are served by it
        if not wait(job, PATIENCE_S, lambda: job.poll() is not None):
            sys.exit(f"FAILED: the job still runs {PATIENCE_S} s after its I/O rank stood still")
        said = job.stderr.read()
    causes = [line for line in said.splitlines() if "quorate: error:" in line]
    if job.returncode != 3 or len(causes) != 1 or "the I/O server" not in causes[0]:
        sys.exit(f"FAILED: exit code {job.returncode}, {len(causes)} causes in\n{said}")
    print(f"one cause: {causes[0]}")
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        with open("deck.yml", "w", encoding="utf-8") as deck:
            deck.write(DECK)
        result = main()
        os.chdir("/")
    sys.exit(result)
