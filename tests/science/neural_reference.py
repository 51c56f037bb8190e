"""The neural agent in NumPy float64: an independent reading of the formulas, sharing no code with Quorate.

    u  = [global shares (K); state x (D); shares among neighbours (K)]
    h  = tanh(W1 u + b1)
    x' = x + dt (W2 h + b2 - x)
    z  = Wv x' + bv,   vote = argmax z (T = 0, lowest index on ties), or drawn from softmax(z / T)

Shares come from the votes of the step before. An agent without neighbours sees shares of 0.
"""

import h5py
import numpy as np

SHAPES = {
    "W1": lambda k, d, h: (h, 2 * k + d),
    "b1": lambda k, d, h: (h,),
    "W2": lambda k, d, h: (d, h),
    "b2": lambda k, d, h: (d,),
    "Wv": lambda k, d, h: (k, d),
    "bv": lambda k, d, h: (k,),
}


def random_weights(rng, options, state_dim, hidden, scale=1.0):
    """Float32 weights and biases; deviation `scale` over the square root of a matrix' columns, biases a third of it."""
    weights = {}
    for name, shape_of in SHAPES.items():
        shape = shape_of(options, state_dim, hidden)
        width = scale / np.sqrt(shape[1]) if len(shape) == 2 else scale / 3
        weights[name] = (width * rng.standard_normal(shape)).astype(np.float32)
    return weights


def write_weights(path, weights):
    with h5py.File(path, "w") as file:
        for name, values in weights.items():
            file[name] = values


def split_weights(flat, options, state_dim, hidden):
    """The six arrays from one after another in a flat array."""
    weights, start = {}, 0
    for name, shape_of in SHAPES.items():
        shape = shape_of(options, state_dim, hidden)
        count = int(np.prod(shape))
        weights[name] = flat[start : start + count].reshape(shape)
        start += count
    if start != len(flat):
        raise ValueError(f"{len(flat)} weights instead of {start}")
    return weights


class Everybody:
    """Complete network: all agents but oneself."""

    def shares(self, votes, options):
        counts = np.bincount(votes, minlength=options) - np.eye(options)[votes]
        return counts / (len(votes) - 1)


class Neighbours:
    """Any network given as pairs (agent, neighbour); a pair that occurs twice counts twice."""

    def __init__(self, agents, pairs):
        self.agent, self.neighbour = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
        self.degree = np.bincount(self.agent, minlength=agents)

    def shares(self, votes, options):
        counts = np.zeros((len(votes), options))
        np.add.at(counts, (self.agent, votes[self.neighbour]), 1.0)
        return counts / np.maximum(self.degree, 1)[:, None]


def ring(agents, degree):
    reach = degree // 2
    return Neighbours(
        agents, [(i, (i + j) % agents) for i in range(agents) for j in range(-reach, reach + 1) if j != 0]
    )


def lattice(size, moore=False, periodic=True):
    """size: (x, y) or (x, y, z); ids run along x first."""
    size = np.array(size)
    strides = np.concatenate([[1], np.cumprod(size[:-1])])
    steps = [np.array(step) - 1 for step in np.ndindex(*[3] * len(size))]
    steps = [s for s in steps if (np.abs(s).max() == 1 if moore else np.abs(s).sum() == 1)]
    pairs = []
    for place in np.ndindex(*size):
        for step in steps:
            other = np.array(place) + step
            if periodic or ((other >= 0) & (other < size)).all():
                pairs.append((int(np.dot(place, strides)), int(np.dot(other % size, strides))))
    return Neighbours(int(size.prod()), pairs)


def undirected(agents, edges):
    """Simple graph of the edges: no self loops, no repeats."""
    pairs = {(a, b) for a, b in edges if a != b}
    return Neighbours(agents, sorted(pairs | {(b, a) for a, b in pairs}))


def advance(weights, network, dt, votes, state):
    """One step of all agents: (new state, scores z)."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    options = len(w["bv"])
    everybody = np.bincount(votes, minlength=options) / len(votes)
    u = np.hstack([np.tile(everybody, (len(votes), 1)), state, network.shares(votes, options)])
    hidden = np.tanh(u @ w["W1"].T + w["b1"])
    state = state + dt * (hidden @ w["W2"].T + w["b2"] - state)
    return state, state @ w["Wv"].T + w["bv"]


def run(weights, network, dt, votes, state, steps):
    """`steps` steps with T = 0. Returns (history of votes [steps + 1][agents], state, smallest margin of any vote)."""
    votes, state = votes.astype(np.int64), state.astype(np.float64)
    history, margin = [votes], np.inf
    for _ in range(steps):
        state, scores = advance(weights, network, dt, votes, state)
        votes = scores.argmax(axis=1)
        top = np.sort(scores, axis=1)
        margin = min(margin, (top[:, -1] - top[:, -2]).min())
        history.append(votes)
    return np.array(history), state, margin


def softmax(scores, temperature):
    scaled = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    return scaled / scaled.sum(axis=1, keepdims=True)
