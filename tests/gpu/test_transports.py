"""The same deck gives the same state hash on CPUs, on one GPU, on several ranks that share one, and on as many GPUs as
there are, whichever way votes travel."""

import os
import sys
import tempfile

from gpu_jobs import causes, count_gpus, finish, job

COMMON = {"run.stop": "steps", "run.steps": "40", "output.overwrite": "true"}
NETWORKS = {
    "complete": {"network.kind": "complete", "agents.count": "100003"},
    "ring": {"network.kind": "ring", "agents.count": "100003", "network.degree": "6"},
    "lattice2d": {"network.kind": "lattice2d", "network.size": "[512, 301]"},
    "wide": {"network.kind": "lattice2d", "network.size": "[16384, 16384]"},  # updated while halos travel
    "moore": {"network.kind": "lattice2d", "network.size": "[450, 301]", "network.neighbours": "moore"},
    "open": {"network.kind": "lattice2d", "network.size": "[300, 301]", "network.periodic": "false"},
    "cube": {"network.kind": "lattice3d", "network.size": "[64, 41, 40]"},
    "regular": {"network.kind": "random_regular", "agents.count": "100002", "network.degree": "8"},
    "scale_free": {"network.kind": "scale_free", "agents.count": "50003"},
}
QUALITIES = "[1, 1, 1, 1.1, 1.2]"
MODELS = {
    "voter": ({"agents.options": "2"}, ["complete", "ring", "lattice2d", "wide", "moore", "regular"]),
    "voter of 5": ({"model.rule": "voter", "agents.options": "5", "model.noise": "0.01"}, ["lattice2d", "cube", "open"]),
    "majority": ({"agents.options": "2"}, ["ring", "lattice2d", "moore", "cube"]),
    "majority of 5": ({"model.rule": "majority", "agents.options": "5", "model.samples": "3"}, ["complete", "open", "regular"]),
    "q_voter": ({"agents.options": "4", "model.q": "2", "model.epsilon": "0.1"}, ["complete", "lattice2d", "scale_free"]),
    "potts": ({"agents.options": "2", "model.temperature": "1.1"}, ["lattice2d", "cube", "ring"]),
    "potts of 3": ({"model.rule": "potts", "agents.options": "3", "model.dynamics": "metropolis"}, ["moore", "open", "lattice2d"]),
    "best_of_n": ({"agents.options": "5", "model.qualities": QUALITIES}, ["complete", "lattice2d", "regular"]),
    "neural": ({"agents.options": "3", "model.state_dim": "16", "model.hidden": "16"}, ["complete", "moore", "scale_free"]),
}

failures = 0


def state_hash(what: str, settings: dict[str, str], ranks: int) -> str:
    global failures
    code, output, errors, _ = finish(job(settings | {"output.directory": "out"}, ranks))
    lines = [line.split()[-1] for line in output.splitlines() if line.startswith("state hash:")]
    if code != 0 or len(lines) != 1:
        failures += 1
        print(f"FAILED: {what}: exit code {code}\n{errors}")
        return "none"
    return lines[0]


def ways(gpus: int) -> dict[str, tuple[dict[str, str], int]]:
    cuda = {"compute.backend": "cuda"}
    found = {
        "one GPU": (cuda, 1),
        "one GPU step by step": (cuda | {"comm.exchange": "mpi-host"}, 1),
        "two ranks through the host": (cuda | {"comm.exchange": "mpi-host"}, 2),
        "three ranks, auto": (cuda | {"comm.exchange": "auto"}, 3),
    }
    code, _, errors, _ = finish(job(COMMON | {"output.directory": "out", "agents.count": "1000"} | cuda | {"comm.exchange": "mpi-cuda"}, 2))
    if code == 0:
        found["two ranks, CUDA-aware MPI"] = (cuda | {"comm.exchange": "mpi-cuda"}, 2)
    elif code == 3 and "needs an MPI library with CUDA support" in " ".join(causes(errors)):
        print("left out: this MPI has no CUDA support")
    else:
        sys.exit(f"FAILED: comm.exchange mpi-cuda: exit code {code}\n{errors}")
    for ranks in (n for n in (2, 4, 8) if n <= gpus):
        found[f"{ranks} GPUs, NCCL"] = (cuda | {"comm.exchange": "nccl"}, ranks)
    return found


def main() -> None:
    global failures
    gpus = count_gpus()
    tried = ways(gpus)
    compared = 0
    cases = [(model, network) for model, (_, networks) in MODELS.items() for network in networks]
    for model, network in cases[: int(os.environ.get("QUORATE_GPU_CASES", len(cases)))]:
        settings = COMMON | {"model.rule": model.split(" ")[0]} | MODELS[model][0] | NETWORKS[network]
        expected = state_hash(f"{model} on {network}, CPU", settings | {"compute.backend": "cpu"}, 1)
        for way, (more, ranks) in tried.items():
            what = f"{model} on {network}, {way}"
            got = state_hash(what, settings | more, ranks)
            compared += 1
            if got != expected:
                failures += 1
                print(f"FAILED: {what}: {got} instead of {expected}")
    print(f"{compared} hashes compared on {gpus} GPUs ({', '.join(tried)}), {failures} failures")
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
