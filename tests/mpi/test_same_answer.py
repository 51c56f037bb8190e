"""The same deck gives the same state hash and the same tallies on any number of ranks, I/O ranks and nodes.

Every model on at least three networks, each on every number of compute ranks; I/O ranks and emulated nodes vary with them so
that every pair of settings occurs. Output switched off, or with other snapshot intervals, changes nothing either.
"""

import functools
import itertools
import os
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "support"))
from side_by_side import COMPUTING, side_by_side

QUORATE = os.environ["QUORATE"]

LATTICE = {"network.kind": "lattice2d", "network.size": "[70, 41]"}
MOORE = LATTICE | {"network.neighbours": "moore"}
NETWORKS = {
    "complete": {"network.kind": "complete", "agents.count": "1003"},
    "ring": {"network.kind": "ring", "agents.count": "1003", "network.degree": "6"},
    "ring of 256": {"network.kind": "ring", "agents.count": "1003", "network.degree": "256"},
    "ring of 512": {"network.kind": "ring", "agents.count": "1003", "network.degree": "512"},
    "lattice2d": LATTICE,
    "moore": MOORE,
    "open": LATTICE | {"network.periodic": "false"},
    "cube": {"network.kind": "lattice3d", "network.size": "[12, 11, 10]"},
    "regular": {"network.kind": "random_regular", "agents.count": "1002", "network.degree": "5"},
    "erdos_renyi": {"network.kind": "erdos_renyi", "agents.count": "1003"},
    "small_world": {"network.kind": "small_world", "agents.count": "1003", "network.degree": "6"},
    "scale_free": {"network.kind": "scale_free", "agents.count": "1003"},
    "edge_list": {"network.kind": "edge_list"},
}
COMMON = {"run.stop": "steps", "run.steps": "12", "output.snapshot_every": "5 steps"}
NOISY = {"model.noise": "0.05", "run.activation": "0.7", "model.zealots": "[7, 0, 3]", "agents.options": "3"}
MODELS = {
    "voter": ({"agents.options": "2"}, ["lattice2d", "moore", "ring", "complete", "edge_list", "ring of 256", "ring of 512"]),
    "voter noisy": ({"model.rule": "voter"} | NOISY, ["lattice2d", "cube", "regular"]),
    "majority": ({"agents.options": "2"}, ["lattice2d", "moore", "cube", "ring", "small_world"]),
    "majority sampled": ({"model.rule": "majority", "model.samples": "3"} | NOISY, ["complete", "open", "scale_free"]),
    "q_voter": ({"model.q": "2", "model.epsilon": "0.1", "agents.options": "4"}, ["complete", "erdos_renyi", "moore"]),
    "potts": ({"agents.options": "3", "model.temperature": "0.9"}, ["lattice2d", "moore", "cube", "ring", "open",
                                                                      "scale_free", "edge_list", "small_world"]),
    "potts metropolis": ({"model.rule": "potts", "model.dynamics": "metropolis", "agents.options": "2"},
                         ["lattice2d", "erdos_renyi", "regular"]),
    "best_of_n": ({"agents.options": "5", "model.qualities": "[1, 1, 1, 1.1, 1.2]"}, ["complete", "open", "edge_list"]),
    "neural": ({"agents.options": "3", "model.state_dim": "9", "model.hidden": "7"}, ["complete", "moore", "regular"]),
    "neural noisy": ({"model.rule": "neural", "model.state_dim": "16", "model.hidden": "16"} | NOISY, ["small_world"]),
}
RANKS = [1, 2, 3, 5, 8]


def finish(command):
    """Exit code (None: it hangs) and output. Short sleeps are counted instead of the clock, which goes on while a virtual
    machine is suspended."""
    with tempfile.TemporaryFile("w+") as output:
        job = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        for _ in range(6000):
            if job.poll() is not None:
                break
            time.sleep(0.02)
        else:
            job.kill()
        output.seek(0)
        return job.returncode, output.read()


def run(settings, ranks, io_ranks, nodes, directory):
    """Runs with `ranks` compute ranks; returns (state hash line, rows of the series)."""
    world = ranks + io_ranks * nodes
    settings = settings | {
        "io.ranks_per_node": str(io_ranks),
        "output.directory": directory,
        "compute.threads": "1",
    }
    if nodes > 1:
        settings["comm.ranks_per_node"] = str(-(-world // nodes))
    command = ["mpirun", "-n", str(world), "--oversubscribe", "--bind-to", "none", QUORATE, "run", DECK, "--quiet"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    code, output = finish(command)
    if code != 0:
        sys.exit(f"FAILED ({code}): {' '.join(command)}\n{output}")
    lines = [line for line in output.splitlines() if line.startswith("state hash:")]
    rows = None
    if settings.get("output.series_every") != "0 steps":
        with h5py.File(os.path.join(directory, "series.h5")) as file:
            rows = {name: file["series"][name][...] for name in ("step", "tally", "winner", "leader", "decided")}
    return lines[0], rows


def check(what, expected, got, compare_rows=True):
    if got[0] != expected[0]:
        sys.exit(f"FAILED: {what}: {got[0]}, expected {expected[0]}")
    if compare_rows:
        for name, values in expected[1].items():
            if not np.array_equal(values, got[1][name]):
                sys.exit(f"FAILED: {what}: series/{name} differs")


def compare(settings, layouts, name, scratch):
    """A run on one rank, and one for each layout (compute ranks, I/O ranks a node, nodes), which must equal it."""
    fresh = functools.partial(tempfile.mkdtemp, dir=scratch)
    expected = run(settings, 1, 0, 1, fresh())
    for ranks, io_ranks, nodes in layouts:
        what = f"{name}, {ranks} compute ranks, {io_ranks} I/O ranks a node, {nodes} nodes"
        check(what, expected, run(settings, ranks, io_ranks, nodes, fresh()))
    return len(layouts)


def compare_outputs(settings, scratch):
    fresh = functools.partial(tempfile.mkdtemp, dir=scratch)
    expected = run(settings, 1, 0, 1, fresh())
    outputs = (("0 steps", "1 steps"), ("1 steps", "0 steps"), ("7 steps", "0 steps"))
    for snapshots, series in outputs:
        output = {"output.snapshot_every": snapshots, "output.series_every": series}
        check(f"output {output}", expected, run(settings | output, 2, 1, 1, fresh()), series == "1 steps")
    return len(outputs)


def main():
    spread = itertools.cycle([(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2), (1, 2)])
    with tempfile.TemporaryDirectory() as scratch:
        tasks = []
        for model, (parameters, networks) in MODELS.items():
            for network in networks:
                settings = COMMON | {"model.rule": model} | parameters | NETWORKS[network]
                if network == "edge_list":
                    settings["network.file"] = os.path.join(os.environ["SOURCE_DIR"], "inputs", "karate.txt")
                layouts = [(ranks, io_ranks, 1 if ranks == 1 else nodes) for ranks, (io_ranks, nodes) in zip(RANKS, spread)]
                tasks.append(functools.partial(compare, settings, layouts, f"{model} on {network}", scratch))
        settings = COMMON | {"model.rule": "voter", "agents.options": "2"} | LATTICE
        layouts = [(p, io, nodes) for p, io, nodes in itertools.product(RANKS, (0, 1, 2), (1, 2)) if nodes <= p]
        for ranks in RANKS:
            some = [layout for layout in layouts if layout[0] == ranks]
            tasks.append(functools.partial(compare, settings, some, f"voter on {ranks}", scratch))
        tasks.append(functools.partial(compare_outputs, settings, scratch))
        checks = sum(side_by_side(tasks, COMPUTING + 1))
    print(f"{checks} runs equal their one-rank reference")


if __name__ == "__main__":
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as deck:
        deck.write("run: {seed: 11}\n")
        deck.flush()
        DECK = deck.name
        main()
