"""Neural agents against the NumPy reference: states and votes after 100 steps, runs from files, and softmax votes.

QUORATE and BUILD_DIR are in the environment; BUILD_DIR/tests/crowd_dump runs a deck and writes raw states and votes.
"""

import os
import subprocess
import tempfile
import unittest

import h5py
import numpy as np

import neural_reference as reference

STEPS = 100
DT = np.float64(np.float32(0.1))
TOLERANCE = 1e-5  # of the state's norm

DECK = """run: {{title: Neural reference, seed: {seed}, steps: 100, stop: steps, activation: 1}}
agents: {{count: {agents}, options: {options}{initial}}}
model: {{rule: neural, state_dim: {state_dim}, hidden: {hidden}, dt: 0.1, temperature: {temperature},
  weights: "{weights}", weight_scale: 1, state_scale: {state_scale}}}
network: {network}
"""

# Name: deck's network, agents, the reference's network.
NETWORKS = {
    "complete": ("{kind: complete}", 501, reference.Everybody),
    "ring": ("{kind: ring, degree: 6}", 500, lambda: reference.ring(500, 6)),
    "lattice": ("{kind: lattice2d, size: [29, 17]}", 493, lambda: reference.lattice((29, 17))),
    "open moore lattice": (
        "{kind: lattice2d, size: [23, 21], neighbours: moore, periodic: false}",
        483,
        lambda: reference.lattice((23, 21), moore=True, periodic=False),
    ),
    "cube": ("{kind: lattice3d, size: [9, 8, 7]}", 504, lambda: reference.lattice((9, 8, 7))),
}
# Options, state, hidden: smaller and larger than a vector, and no multiple of one.
SHAPES = [(2, 3, 5), (3, 16, 32), (5, 33, 47), (9, 64, 20)]


def write_deck(directory, **values):
    values = {"initial": "", "weights": "", "state_scale": 1, "temperature": 0} | values
    path = os.path.join(directory, "deck.yml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(DECK.format(**values))
    return path


def call(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def dump(directory, steps, **values):
    """Weights, first votes and state, and votes and state after `steps`."""
    prefix = os.path.join(directory, "dump")
    program = os.path.join(os.environ["BUILD_DIR"], "tests", "crowd_dump")
    call([program, write_deck(directory, **values), str(steps), prefix])
    flat = np.fromfile(prefix + ".weights", dtype=np.float32)
    weights = reference.split_weights(flat, values["options"], values["state_dim"], values["hidden"])
    shape = (values["agents"], values["state_dim"])
    votes = [np.fromfile(f"{prefix}.{name}", dtype=np.uint8).astype(np.int64) for name in ("votes0", "votes")]
    state = [np.fromfile(f"{prefix}.{name}", dtype=np.float32).reshape(shape) for name in ("state0", "state")]
    return weights, votes, state


class States(unittest.TestCase):
    """One process, started from what Quorate says it started from."""

    def compare(self, seed, name, shape, from_file):
        options, state_dim, hidden = shape
        network, agents, make = NETWORKS[name]
        with tempfile.TemporaryDirectory() as directory:
            values = {"seed": seed, "agents": agents, "options": options, "state_dim": state_dim, "hidden": hidden}
            given = None
            if from_file:
                given = reference.random_weights(np.random.default_rng(seed), *shape)
                values["weights"] = os.path.join(directory, "weights.h5")
                reference.write_weights(values["weights"], given)
            weights, votes, state = dump(directory, STEPS, network=network, **values)
        if from_file:
            for key, array in given.items():
                np.testing.assert_array_equal(weights[key], array)
        history, expected, margin = reference.run(weights, make(), DT, votes[0], state[0], STEPS)
        error = np.linalg.norm(state[1] - expected) / np.linalg.norm(expected)
        changed = (history[0] != history[-1]).mean()
        source = "weights file" if from_file else "seeded weights"
        print(f"{name}, {shape}, {source}: relative error {error:.1e}, {changed:.0%} of the votes changed", flush=True)
        self.assertLess(error, TOLERANCE)
        np.testing.assert_array_equal(votes[1], history[-1], f"smallest margin of a vote: {margin:.1e}")
        self.assertGreater(np.linalg.norm(expected - state[0]), 0.1 * np.linalg.norm(expected))

    def test_states_and_votes(self):
        for number, name in enumerate(NETWORKS):
            for from_file in (False, True):
                shape = SHAPES[(number + from_file) % len(SHAPES)]
                with self.subTest(network=name, shape=shape, from_file=from_file):
                    self.compare(100 + number, name, shape, from_file)


class Runs(unittest.TestCase):
    """The program itself: weights, first votes and edges from files, all states 0, every vote of every step."""

    def test_edge_list(self):
        agents, shape = 400, (4, 12, 24)
        rng = np.random.default_rng(7)
        # Ids come up in ascending order; a self loop is dropped and leaves the last agent without neighbours.
        edges = [(i, i + 1) for i in range(agents - 2)] + [(agents - 1, agents - 1)]
        edges += [tuple(pair) for pair in rng.integers(0, agents - 1, (1200, 2)).tolist()]
        weights = reference.random_weights(rng, *shape, scale=1.5)
        first = rng.integers(0, shape[0], agents).astype(np.uint8)
        with tempfile.TemporaryDirectory() as directory:
            path = {name: os.path.join(directory, name) for name in ("weights.h5", "votes.h5", "edges.txt", "results")}
            reference.write_weights(path["weights.h5"], weights)
            with h5py.File(path["votes.h5"], "w") as file:
                file["votes"] = first
            with open(path["edges.txt"], "w", encoding="utf-8") as file:
                file.writelines(f"{a} {b}\n" for a, b in edges)
            deck = write_deck(
                directory,
                seed=1,
                agents=agents,
                options=shape[0],
                state_dim=shape[1],
                hidden=shape[2],
                initial=f', initial: file, file: "{path["votes.h5"]}"',
                weights=path["weights.h5"],
                state_scale=0,
                network=f'{{kind: edge_list, file: "{path["edges.txt"]}"}}',
            )
            settings = {"output.directory": path["results"], "output.snapshot_every": "1 steps"}
            call([os.environ["QUORATE"], "run", deck, "--quiet", *[f"--set={k}={v}" for k, v in settings.items()]])
            with h5py.File(os.path.join(path["results"], "snapshots.h5")) as file:
                snapshots, steps = file["votes"][:], file["step"][:]
            with h5py.File(os.path.join(path["results"], "series.h5")) as file:
                tallies = file["series/tally"][:]
                series_steps = file["series/step"][:]
        network = reference.undirected(agents, edges)
        self.assertEqual(network.degree[-1], 0)
        history, _, margin = reference.run(weights, network, DT, first, np.zeros((agents, shape[1])), STEPS)
        print(f"edge list: smallest margin of {history.size} votes {margin:.1e}", flush=True)
        expected_tallies = np.array([np.bincount(votes, minlength=shape[0]) for votes in history])
        np.testing.assert_array_equal(steps[[0, -1]], [0, STEPS])
        np.testing.assert_array_equal(snapshots, history[steps])
        np.testing.assert_array_equal(tallies, expected_tallies[series_steps])
        self.assertGreaterEqual(len(series_steps), STEPS)
        self.assertGreater((history[1:] != history[:-1]).sum(), agents)


class Temperature(unittest.TestCase):
    def test_votes_follow_softmax(self):
        """One step at T > 0: votes for an option, in groups of agents of like probability, within 4 standard errors."""
        for temperature in (0.3, 1.0, 5.0):
            agents, shape = 20000, (4, 8, 16)
            values = {"seed": 3, "agents": agents, "options": shape[0], "state_dim": shape[1], "hidden": shape[2]}
            with tempfile.TemporaryDirectory() as directory:
                weights, votes, state = dump(
                    directory, 1, network="{kind: ring, degree: 4}", temperature=temperature, **values
                )
            moved, scores = reference.advance(
                weights, reference.ring(agents, 4), DT, votes[0], state[0].astype(np.float64)
            )
            np.testing.assert_allclose(state[1], moved, atol=1e-6)
            chance = reference.softmax(scores, temperature)
            for option in range(shape[0]):
                order = np.argsort(chance[:, option])
                for group in np.array_split(order, 10):
                    p = chance[group, option]
                    excess = (votes[1][group] == option).sum() - p.sum()
                    self.assertLess(abs(excess) / np.sqrt((p * (1 - p)).sum()), 4.0, (temperature, option))


if __name__ == "__main__":
    unittest.main()
