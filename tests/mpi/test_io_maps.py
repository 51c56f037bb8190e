"""I/O ranks are free of CUDA, and refuse to run where a library of it is mapped into them."""

import os
import subprocess
import sys
import tempfile

QUORATE = os.environ["QUORATE"]
DECK = """
run: {seed: 2, steps: 50}
agents: {count: 2000}
output: {directory: out, overwrite: true}
"""


def run(preloaded_io: str, preloaded_compute: str) -> subprocess.CompletedProcess:
    """World rank 0 is the I/O rank; each side may get a library."""
    start = ["mpirun", "--oversubscribe", "--bind-to", "none"]
    program = [QUORATE, "run", "deck.yml"]
    command = start + ["-n", "1", "env", f"LD_PRELOAD={preloaded_io}"] + program
    command += [":", "-n", "2", "env", f"LD_PRELOAD={preloaded_compute}"] + program
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def main() -> None:
    with open("deck.yml", "w", encoding="utf-8") as deck:
        deck.write(DECK)
    with open("nothing.c", "w", encoding="ascii") as source:
        source.write("int qr_nothing_at_all;\n")
    here = os.getcwd()
    libraries = [f"{here}/{name}" for name in ("libcudart.so.12", "libcuda.so.1", "libnccl.so.2", "libquorate_cuda.so")]
    for library in libraries + [f"{here}/libbarracuda.so"]:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, "nothing.c"], check=True)
    for library in libraries:
        job = run(library, "")
        causes = [line for line in job.stderr.splitlines() if "quorate: error:" in line]
        if job.returncode != 3 or len(causes) != 1 or library not in causes[0] or "rank 0" not in causes[0]:
            sys.exit(f"FAILED: {library} in the I/O rank: exit code {job.returncode}, causes {causes}\n{job.stderr}")
    for io, compute in (("", libraries[0]), (f"{here}/libbarracuda.so", "")):
        job = run(io, compute)
        if job.returncode != 0:
            sys.exit(f"FAILED: {io or compute} is nothing to refuse: exit code {job.returncode}\n{job.stderr}")
    print(f"refused: {', '.join(os.path.basename(library) for library in libraries)}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        main()
        os.chdir("/")
