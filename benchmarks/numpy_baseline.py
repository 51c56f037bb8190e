#!/usr/bin/env python3
"""The models of bench_cpu in vectorised NumPy, on one core: what a careful user would write without a simulator.

    numpy_baseline.py [--style plain|tuned] [--repeats N] [NAME...]

Prints a line per measurement like bench_cpu: name, agents, updates per second (median), spread, separated by tabs.
Both styles are vectorised, with votes as uint8, states as float32, SFC64 (NumPy's fastest generator) and BLAS on one
thread. They differ in how far their author went:

  plain   whole-array expressions: rolled views, one random integer for each agent
  tuned   for machine and cache: buffers allocated once and reused (out=), raw random words whose bits choose the
          directions, selection by bit masks, lattices in strips of rows and neural agents in batches that fit the cache
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import statistics
import time

import numpy as np

SEED = 1
STRIP_BYTES = 1 << 17  # of votes to a strip; a strip's buffers fit the second-level cache (tried: 2^14 .. 2^22)


class Lattice:
    """Votes on a periodic lattice with a rim of copies, so that a neighbour is a shifted view."""

    def __init__(self, height, width, options=2):
        rng = np.random.Generator(np.random.SFC64(SEED))
        self.bits = rng.bit_generator
        self.height, self.width, self.options = height, width, options
        self.rows = max(1, min(height, STRIP_BYTES // width))
        self.votes = np.zeros((height + 2, width + 2), np.uint8)
        self.next = np.zeros_like(self.votes)
        self.votes[1:-1, 1:-1] = rng.integers(0, options, (height, width), np.uint8)
        self.buffers = [np.empty((self.rows, width), np.uint8) for _ in range(6)]
        self.agents = height * width

    def strips(self):
        """Yields for each strip: views of the votes at (dy, dx), the place of the result, and buffers."""
        v = self.votes
        v[0], v[-1] = v[-2], v[1]
        v[:, 0], v[:, -1] = v[:, -2], v[:, 1]
        w = self.width
        for top in range(0, self.height, self.rows):
            n = min(self.rows, self.height - top)

            def at(dy, dx, top=top, n=n):
                return v[1 + top + dy : 1 + top + dy + n, 1 + dx : 1 + dx + w]

            yield at, self.next[1 + top : 1 + top + n, 1 : 1 + w], [b[:n] for b in self.buffers]

    def finish(self):
        """Makes the new votes current and counts them."""
        self.votes, self.next = self.next, self.votes
        inner = self.votes[1:-1, 1:-1]
        if self.options == 2:
            ones = int(np.count_nonzero(inner))
            return [self.agents - ones, ones]
        return np.bincount(inner.ravel(), minlength=self.options)

    def random_bytes(self, shape):
        """Fresh random bytes; each raw draw gives eight."""
        n = shape[0] * shape[1]
        return self.bits.random_raw((n + 7) // 8).view(np.uint8)[:n].reshape(shape)


class Voter(Lattice):
    """Adopts the vote of a random neighbour: four choices by two bits, eight (Moore) by three."""

    def __init__(self, height, width, options=2, moore=False):
        super().__init__(height, width, options)
        self.moore = moore

    def step(self):
        for at, out, b in self.strips():
            shape = out.shape
            # One random byte serves four directions (two bits each), or two of three bits.
            fresh = self.random_bytes(((shape[0] + (1 if self.moore else 3)) // (2 if self.moore else 4), shape[1]))
            bits = b[0]
            rows = fresh.shape[0]
            for part in range(2 if self.moore else 4):
                piece = bits[part * rows : (part + 1) * rows]
                np.right_shift(fresh[: piece.shape[0]], part * (3 if self.moore else 2), out=piece)

            def blend(first, second, bit, out):
                """second where the bit is set, else first."""
                np.bitwise_xor(first, second, out=out)
                np.bitwise_and(out, bit, out=out)
                np.bitwise_xor(out, first, out=out)

            def mask(k, out):
                """All ones where bit k is set."""
                np.right_shift(bits, k, out=out)
                np.bitwise_and(out, 1, out=out)
                np.negative(out, out=out)
                return out

            low = mask(0, b[1])
            if not self.moore:
                blend(at(-1, 0), at(0, -1), low, b[2])
                blend(at(0, 1), at(1, 0), low, b[3])
                blend(b[2], b[3], mask(1, b[1]), out)
                continue
            blend(at(-1, -1), at(-1, 0), low, b[2])
            blend(at(-1, 1), at(0, -1), low, b[3])
            blend(at(0, 1), at(1, -1), low, b[4])
            blend(at(1, 0), at(1, 1), low, b[5])
            middle = mask(1, b[1])
            blend(b[2], b[3], middle, b[2])
            blend(b[4], b[5], middle, b[4])
            blend(b[2], b[4], mask(2, b[1]), out)
        return self.finish()


class Majority(Lattice):
    """Adopts the majority among all neighbours, keeps its own vote on a tie."""

    def __init__(self, height, width, moore=False):
        super().__init__(height, width)
        self.moore = moore

    def step(self):
        for at, out, b in self.strips():
            total = b[0]
            np.add(at(-1, 0), at(1, 0), out=total)
            np.add(total, at(0, -1), out=total)
            np.add(total, at(0, 1), out=total)
            if self.moore:
                for dy in (-1, 1):
                    for dx in (-1, 1):
                        np.add(total, at(dy, dx), out=total)
            # 2 total + own > degree: own breaks the tie. Twice the total plus own is odd or even with own.
            np.add(total, total, out=total)
            np.add(total, at(0, 0), out=total)
            np.greater(total, 8 if self.moore else 4, out=out.view(bool))
        return self.finish()


class PlainVoter:
    """The voter model in whole-array expressions."""

    def __init__(self, height, width, options=2, moore=False):
        self.rng = np.random.Generator(np.random.SFC64(SEED))
        self.votes = self.rng.integers(0, options, (height, width), np.uint8)
        self.options, self.agents = options, height * width
        self.offsets = [(-1, 0), (0, -1), (0, 1), (1, 0)]
        if moore:
            self.offsets += [(-1, -1), (-1, 1), (1, -1), (1, 1)]

    def step(self):
        v = self.votes
        choice = self.rng.integers(0, len(self.offsets), v.shape, np.uint8)
        new = np.zeros_like(v)
        for j, offset in enumerate(self.offsets):  # a product is four times as fast as np.where, which branches
            new += np.roll(v, offset, (0, 1)) * (choice == j)
        self.votes = new
        return np.bincount(new.ravel(), minlength=self.options) if self.options > 2 else count_two(new)


class PlainMajority:
    """The majority rule in whole-array expressions."""

    def __init__(self, height, width, moore=False):
        rng = np.random.Generator(np.random.SFC64(SEED))
        self.votes = rng.integers(0, 2, (height, width), np.uint8)
        self.moore, self.agents = moore, height * width

    def step(self):
        v = self.votes
        columns = np.roll(v, 1, 0) + np.roll(v, -1, 0)
        if self.moore:
            three = columns + v
            total = columns + np.roll(three, 1, 1) + np.roll(three, -1, 1)
        else:
            total = columns + np.roll(v, 1, 1) + np.roll(v, -1, 1)
        self.votes = (2 * total + v > (8 if self.moore else 4)).view(np.uint8)
        return count_two(self.votes)


def count_two(votes):
    ones = int(np.count_nonzero(votes))
    return [votes.size - ones, ones]


class Neural:
    """Small recurrent network of shared weights; votes sampled from softmax by inverting its cumulative sum."""

    D, H, K = 64, 64, 5
    BATCH = 2048  # agents (tried: 256 .. 65536 and all at once)

    def __init__(self, agents, width=0):
        rng = np.random.Generator(np.random.SFC64(SEED))
        self.rng, self.agents, self.width = rng, agents, width
        d, h, k = self.D, self.H, self.K

        def matrix(rows, columns):
            return (rng.standard_normal((columns, rows)) / np.sqrt(columns)).astype(np.float32)

        self.wg, self.wx, self.ws = matrix(h, k), matrix(h, d), matrix(h, k)
        self.w1 = np.concatenate([self.wx, self.ws])
        self.w2, self.wv = matrix(d, h), matrix(k, d)
        self.b1, self.b2, self.bv = (np.zeros(n, np.float32) for n in (h, d, k))
        self.x = rng.random((agents, d), np.float32) - np.float32(0.5)
        self.votes = rng.integers(0, k, agents, np.uint8)
        self.tally = np.bincount(self.votes, minlength=k)
        n = min(self.BATCH, agents)
        self.u = np.empty((n, d + k), np.float32)
        self.h = np.empty((n, h), np.float32)
        self.dx = np.empty((n, d), np.float32)
        self.z = np.empty((n, k), np.float32)

    def shares(self, begin, end, out):
        """Shares of the options among each agent's neighbours."""
        k = self.K
        if self.width == 0:  # everybody but oneself
            out[:] = self.tally.astype(np.float32)
            out[np.arange(end - begin), self.votes[begin:end]] -= 1
            out /= np.float32(self.agents - 1)
            return
        w = self.width
        top, rows = begin // w, (end - begin) // w
        lattice = self.votes.reshape(-1, w)
        own = lattice[top : top + rows]
        if self.stacked is None or self.stacked.shape[1:] != own.shape:
            self.stacked = np.empty((4, *own.shape), np.uint8)
        s = self.stacked
        height = lattice.shape[0]
        s[0, 1:], s[0, 0] = own[:-1], lattice[top - 1]
        s[1, :-1], s[1, -1] = own[1:], lattice[(top + rows) % height]
        s[2, :, 1:], s[2, :, 0] = own[:, :-1], own[:, -1]
        s[3, :, :-1], s[3, :, -1] = own[:, 1:], own[:, 0]
        for option in range(k):
            count = np.sum(s == option, axis=0, dtype=np.uint8)
            np.multiply(count.ravel(), np.float32(0.25), out=out[:, option])

    stacked = None

    def step(self):
        d = self.D
        base = self.b1 + (self.tally / self.agents).astype(np.float32) @ self.wg
        new = np.empty_like(self.votes)
        n = self.u.shape[0]
        for begin in range(0, self.agents, n):
            end = min(begin + n, self.agents)
            m = end - begin
            u, h, dx, z = self.u[:m], self.h[:m], self.dx[:m], self.z[:m]
            x = self.x[begin:end]
            u[:, :d] = x
            self.shares(begin, end, u[:, d:])
            np.matmul(u, self.w1, out=h)
            h += base
            np.tanh(h, out=h)
            np.matmul(h, self.w2, out=dx)
            dx += self.b2
            dx -= x
            dx *= np.float32(0.1)
            x += dx
            np.matmul(x, self.wv, out=z)
            z += self.bv
            z -= z.max(axis=1, keepdims=True)
            np.exp(z, out=z)
            np.cumsum(z, axis=1, out=z)
            drawn = self.rng.random(m, np.float32) * z[:, -1]
            new[begin:end] = np.minimum((z <= drawn[:, None]).sum(axis=1, dtype=np.uint8), self.K - 1)
        self.votes = new
        self.tally = np.bincount(new, minlength=self.K)
        return self.tally


class PlainNeural(Neural):
    """The same on all agents at once."""

    def __init__(self, agents, width=0):
        super().__init__(agents, width)
        self.u = np.empty((agents, self.D + self.K), np.float32)
        self.h = np.empty((agents, self.H), np.float32)
        self.dx = np.empty((agents, self.D), np.float32)
        self.z = np.empty((agents, self.K), np.float32)


TUNED = {
    "voter-1024": lambda: Voter(1024, 1024),
    "voter-4096": lambda: Voter(4096, 4096),
    "voter-10000": lambda: Voter(10000, 10000),
    "voter-moore-4096": lambda: Voter(4096, 4096, moore=True),
    "voter-5-options-4096": lambda: Voter(4096, 4096, options=5),
    "voter-moore-1024": lambda: Voter(1024, 1024, moore=True),
    "majority-1024": lambda: Majority(1024, 1024),
    "majority-moore-1024": lambda: Majority(1024, 1024, moore=True),
    "majority-4096": lambda: Majority(4096, 4096),
    "majority-10000": lambda: Majority(10000, 10000),
    "majority-moore-4096": lambda: Majority(4096, 4096, moore=True),
    "neural-lattice": lambda: Neural(512 * 512, width=512),
    "neural-complete": lambda: Neural(262144),
}

PLAIN = {
    "voter-1024": lambda: PlainVoter(1024, 1024),
    "voter-4096": lambda: PlainVoter(4096, 4096),
    "voter-10000": lambda: PlainVoter(10000, 10000),
    "voter-moore-4096": lambda: PlainVoter(4096, 4096, moore=True),
    "voter-5-options-4096": lambda: PlainVoter(4096, 4096, options=5),
    "voter-moore-1024": lambda: PlainVoter(1024, 1024, moore=True),
    "majority-1024": lambda: PlainMajority(1024, 1024),
    "majority-moore-1024": lambda: PlainMajority(1024, 1024, moore=True),
    "majority-4096": lambda: PlainMajority(4096, 4096),
    "majority-10000": lambda: PlainMajority(10000, 10000),
    "majority-moore-4096": lambda: PlainMajority(4096, 4096, moore=True),
    "neural-lattice": lambda: PlainNeural(512 * 512, width=512),
    "neural-complete": lambda: PlainNeural(262144),
}


def measure(model, repeats):
    """Updates per second of each repeat, processor time; the first run finds how many steps take a quarter second."""
    steps = 0
    begin = time.thread_time()
    while time.thread_time() - begin < 0.25:
        model.step()
        steps += 1
    rates = []
    for _ in range(repeats):
        begin = time.thread_time()
        for _ in range(steps):
            tally = model.step()
        rates.append(model.agents * steps / (time.thread_time() - begin))
    assert sum(tally) == model.agents
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", choices=("plain", "tuned"), default="tuned")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    cases = PLAIN if args.style == "plain" else TUNED
    for name in args.names or cases:
        if name not in cases:
            parser.error(f"no case {name}; there are: {' '.join(cases)}")
        model = cases[name]()
        rates = measure(model, args.repeats)
        rate = statistics.median(rates)
        print(f"{name}\t{model.agents}\t{rate:.4g}\t{(max(rates) - min(rates)) / rate:.3f}", flush=True)


if __name__ == "__main__":
    main()
