"""Agents whose states do not fit into a GPU's share of memory end with the state hash that they have where all fit: pages
over GPU, memory and files, on one rank and on several that share a GPU, with checkpoints that go on elsewhere."""

import os
import random
import sys
import tempfile

from gpu_jobs import causes, count_gpus, finish, job

CASES = int(os.environ.get("QUORATE_GPU_CASES", "12"))
AGENTS = 60_000
KIB = 1024
CUDA = {"compute.backend": "cuda"}
CPU = {"compute.backend": "cpu"}
MODELS = {
    "small world": {"network.kind": "small_world", "network.degree": "4", "network.rewire": "0.1", "agents.count": str(AGENTS)},
    "lattice": {"network.kind": "lattice2d", "network.size": "[300, 200]", "network.neighbours": "moore"},
    "complete": {"network.kind": "complete", "agents.count": str(AGENTS)},
}
COMMON = {
    "run.stop": "steps",
    "run.steps": "12",
    "agents.options": "3",
    "model.rule": "neural",
    "model.state_dim": "64",
    "model.hidden": "32",
    "output.overwrite": "true",
    "output.directory": "out",
}
STATES = AGENTS * 64 * 4

failures = 0


def fail(what: str, why: str) -> None:
    global failures
    failures += 1
    print(f"FAILED: {what}: {why}")


def run(what: str, settings: dict[str, str], ranks: int = 1, restart: bool = False, wanted: int = 0) -> tuple[str, str]:
    """State hash and all that was said."""
    command = job(COMMON | settings, ranks)
    if restart:
        command = [word for part in command for word in ([part, "--restart", "auto"] if part == "deck.yml" else [part])]
    code, output, errors, _ = finish(command)
    lines = [line.split()[-1] for line in output.splitlines() if line.startswith("state hash:")]
    if code != wanted or len(lines) != 1:
        fail(what, f"exit code {code}\n{output[-1500:]}{errors[-1500:]}")
        return "none", output
    return lines[0], output


def tiers(page: int, gpu: int, cpu: int, disk: bool = True) -> dict[str, str]:
    """Capacities in bytes; those of the node hold for all its ranks."""
    found = {
        "memory.page": f"{page} B",
        "memory.tiers.gpu.capacity": f"{gpu} B",
        "memory.tiers.cpu.capacity": f"{cpu} B",
    }
    if disk:
        found |= {"memory.tiers.nvme.directory": "nvme", "memory.tiers.nvme.capacity": f"{STATES // 3 + 2 * page} B"}
        found |= {"memory.tiers.hdd.directory": "hdd"}
    return found


def main() -> None:
    count_gpus()
    draw = random.Random(4)
    expected = {}
    for name, network in MODELS.items():
        for activation in ("1", "0.00002"):
            settings = network | {"run.activation": activation}
            expected[name, activation] = run(f"{name}, CPU", settings | CPU)[0]
    fixed = [(256 * KIB, STATES // 2, 2 * STATES), (64 * KIB, STATES // 10, STATES // 4), (1024 * KIB, 1024 * KIB, 1024 * KIB)]
    for case in range(CASES):
        name = list(MODELS)[case % len(MODELS)]
        activation = "0.00002" if case % 4 == 3 else "1"
        page = draw.choice((64, 256, 1024)) * KIB
        sizes = (page, max(page, int(STATES * draw.uniform(0.05, 0.9))), max(page, int(STATES * draw.uniform(0.05, 1.2))))
        page, gpu, cpu = fixed[case] if case < len(fixed) else sizes
        ranks = (1, 2, 1, 3)[case % 4]
        settings = MODELS[name] | {"run.activation": activation} | tiers(page, gpu // ranks, cpu) | CUDA
        settings |= {"memory.prefetch.sequential": draw.choice(("true", "false"))}
        settings |= {"memory.prefetch.correlation": draw.choice(("true", "false"))}
        what = f"{name}, activation {activation}, page {page}, gpu {gpu // ranks} a rank, cpu {cpu}, {ranks} ranks"
        got, said = run(what, settings, ranks)
        if got != expected[name, activation]:
            fail(what, f"{got} instead of {expected[name, activation]}")
        if "pages" not in said:
            fail(what, "nothing was paged")

    # A cut on a GPU, of pages in all tiers; the rest of the way on CPUs, whole, and the other way round.
    network = MODELS["lattice"]
    paged = tiers(256 * KIB, STATES // 3, STATES // 3)
    for begin, go_on, ranks in ((paged | CUDA, CPU, 1), (CPU, paged | CUDA, 1), (paged | CUDA, paged | CUDA, 2)):
        where = tempfile.mkdtemp(dir=".")
        kept = {"checkpoint.tiers.nvme.directory": where, "checkpoint.every": "7 steps"}
        what = f"from {begin['compute.backend']} to {go_on['compute.backend']} on {ranks} ranks"
        first = network | {"run.steps": "7"} | begin | kept
        run(f"{what}, first half", first)
        got, said = run(what, network | go_on | kept, ranks, restart=True)
        if got != expected["lattice", "1"] or "step 7" not in said:
            fail(what, f"{got} instead of {expected['lattice', '1']}")

    # What cannot be is said before anything begins.
    none = tiers(256 * KIB, STATES // 10, STATES // 10, disk=False)
    code, _, errors, _ = finish(job(COMMON | network | none | CUDA))
    if code not in (2, 3) or len(causes(errors)) != 1 or "memory.tiers" not in errors:
        fail("tiers that are too small", f"exit code {code}\n{errors}")
    print(f"{CASES + 4} paged runs, {failures} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        with open("deck.yml", "w", encoding="utf-8") as deck:
            deck.write("run: {seed: 3}\noutput: {directory: out}\n")
        main()
