"""Real social networks: counts as an independent reader finds them, every vote model on them, any number of ranks.

The files are not part of the project. They are looked for in QUORATE_DATA, then in ../shared/data beside the sources; without
them the test is skipped. They come from the Stanford Large Network Dataset Collection (ego-Facebook, email-Enron).
"""

import functools
import gzip
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "support"))
from side_by_side import side_by_side

QUORATE = os.environ["QUORATE"]
FILES = ["ego-facebook.txt", "email-Enron.txt.gz"]
MODELS = {
    "voter": {},
    "majority": {},
    "q_voter": {"model.q": "2"},
    "potts": {"model.temperature": "2"},
    "best_of_n": {"model.qualities": "[1, 1.1, 1.2]"},
    "neural": {"model.state_dim": "8", "model.hidden": "8"},
}


def find_data():
    for folder in (os.environ.get("QUORATE_DATA", ""), os.path.join(os.environ["SOURCE_DIR"], "..", "shared", "data")):
        if folder and all(os.path.isfile(os.path.join(folder, name)) for name in FILES):
            return folder
    print("skipped: no real networks in QUORATE_DATA")
    sys.exit(77)


def count(path):
    """Agents, edges and components, by sets and a union-find."""
    opened = gzip.open(path, "rt") if path.endswith(".gz") else open(path, encoding="ascii")
    with opened as file:
        pairs = {tuple(sorted(map(int, line.split()[:2]))) for line in file if not line.startswith("#")}
    pairs = {(a, b) for a, b in pairs if a != b}
    root = {agent: agent for pair in pairs for agent in pair}

    def find(agent):
        while root[agent] != agent:
            root[agent] = root[root[agent]]
            agent = root[agent]
        return agent

    for a, b in pairs:
        root[find(a)] = find(b)
    return len(root), len(pairs), sum(1 for agent in root if find(agent) == agent)


def run(path, model, ranks, directory):
    settings = {"run.stop": "steps", "run.steps": "20", "agents.options": "3", "network.kind": "edge_list",
                "network.file": path, "model.rule": model, "output.directory": directory} | MODELS[model]
    command = ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none", QUORATE, "run", DECK]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        sys.exit(f"FAILED: {model} on {path}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    with open(os.path.join(directory, "summary.json"), encoding="utf-8") as file:
        return json.load(file)


def main(data):
    with tempfile.TemporaryDirectory() as scratch:
        for name in FILES:
            path = os.path.join(data, name)
            agents, edges, components = count(path)
            hashes = {}
            runs = [(model, ranks) for ranks in (1, 3) for model in MODELS]
            done = side_by_side([functools.partial(run, path, model, ranks, os.path.join(scratch, f"{name}.{model}.{ranks}"))
                                 for model, ranks in runs])
            for (model, ranks), summary in zip(runs, done):
                network = summary["network"]
                found = (summary["agents"], network["edges"], network["degree_sum"], network["components"])
                if found != (agents, edges, 2 * edges, components):
                    sys.exit(f"FAILED: {name}: {found}, expected {(agents, edges, 2 * edges, components)}")
                if model == "potts" and not 3 <= network["colours"] <= 255:  # there are triangles, and no huge cliques
                    sys.exit(f"FAILED: potts on {name}: {network['colours']} colours")
                if sum(summary["tally"]) != agents:
                    sys.exit(f"FAILED: {model} on {name}: the tally {summary['tally']} does not sum to {agents}")
                if hashes.setdefault(model, summary["state_hash"]) != summary["state_hash"]:
                    sys.exit(f"FAILED: {model} on {name}: another state hash on {ranks} ranks")
            print(f"{name}: {agents} agents, {edges} edges, {components} components, {len(MODELS)} models")


if __name__ == "__main__":
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as deck:
        deck.write("run: {seed: 11}\n")
        deck.flush()
        DECK = deck.name
        main(find_data())
