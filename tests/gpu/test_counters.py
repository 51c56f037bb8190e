"""What is told of GPUs: kernel time, memory moved beside the copy bandwidth, and the phases of a step."""

import json
import os
import sys
import tempfile

from gpu_jobs import count_gpus, finish, job

SETTINGS = {
    "compute.backend": "cuda",
    "run.stop": "steps",
    "run.steps": "3000",
    "run.progress_every": "0.2 s",
    "output.directory": "out",
    "output.overwrite": "true",
    "output.series_every": "100 steps",
}
LARGE = {"network.kind": "lattice2d", "network.size": "[16384, 8192]", "model.rule": "voter", "agents.options": "2"}
WIDE = LARGE | {"network.size": "[16384, 16384]", "run.steps": "600", "comm.exchange": "mpi-host"}
SMALL = {"network.kind": "complete", "agents.count": "10000"}
SWEEPS = {"network.kind": "lattice2d", "network.size": "[8192, 8192]", "model.rule": "potts", "agents.options": "2"}

failures = 0


def check(what: str, fine: bool, told: object) -> None:
    global failures
    failures += 0 if fine else 1
    print(f"{'ok' if fine else 'FAILED'}: {what}: {told}")


def told_of(settings: dict[str, str], ranks: int = 1) -> tuple[dict, list[dict], str]:
    code, output, errors, _ = finish(job(SETTINGS | settings, ranks))
    if code != 0:
        sys.exit(f"FAILED: {settings}: exit code {code}\n{errors}")
    with open("out/summary.json", encoding="utf-8") as summary, open("out/metrics.jsonl", encoding="utf-8") as metrics:
        return json.load(summary)["gpu_of_compute_rank_0"], [json.loads(line) for line in metrics], output


def main() -> None:
    count_gpus()
    gpu, metrics, output = told_of(LARGE)
    check("a large crowd keeps the GPU busy", 0.9 < gpu["gpu_busy"] <= 1.0, gpu["gpu_busy"])
    check("the bytes are those of the votes", gpu["moved_bytes"] == 3000 * 16384 * 8192 / 4, gpu["moved_bytes"])
    check("a copy was measured", gpu["copy_bytes_per_s"] > 2e11, gpu["copy_bytes_per_s"])
    check("steps are not faster than copies", 0.05 < gpu["moved_of_copy"] < 1.05, gpu["moved_of_copy"])
    check("phases are told when asked for", "device_update_s" not in gpu, sorted(gpu))
    check("metrics tell it, too", metrics[-1]["kernel_s"] >= metrics[0]["kernel_s"] > 0, metrics[-1])
    check("and the table", "GPUs: in kernels for" in output and "a copy moves" in output, output.count("GPU"))
    for name, settings, ranks in (("graphs", LARGE, 1), ("a launch", SMALL, 1), ("sweeps", SWEEPS, 1), ("two ranks", LARGE | {"comm.exchange": "mpi-host"}, 2), ("halos beside updates", WIDE, 2)):
        gpu, _, output = told_of(settings | {"compute.device_times": "true"}, ranks)
        phases = gpu["device_halo_s"] + gpu["device_update_s"] + gpu["device_reduce_s"]
        check(f"{name}: phases add up to the kernels", 0.7 < phases / gpu["kernel_s"] < 1.3, gpu)
        check(f"{name}: the table has them", "from one step of each batch: halo exchange" in output, "")
        check(f"{name}: busy is a share", 0 < gpu["gpu_busy"] <= 1.0, gpu["gpu_busy"])
    print(f"{failures} failures")
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
