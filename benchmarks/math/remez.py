"""Remez's exchange algorithm for weighted rational and polynomial approximation, in arbitrary precision (mpmath)."""

from mpmath import mp, mpf, matrix, lu_solve, cos, pi

mp.dps = 50


def extrema(error, low, high, samples=4000):
    """Points of locally largest |error| with alternating sign, from a dense scan refined by golden-section search."""
    grid = [low + (high - low) * (1 - cos(pi * i / samples)) / 2 for i in range(samples + 1)]
    values = [error(z) for z in grid]
    runs, start = [], 0
    for i in range(1, samples + 2):
        if i == samples + 1 or (values[i] > 0) != (values[start] > 0):
            best = max(range(start, i), key=lambda j: abs(values[j]))
            a, b = grid[max(best - 1, 0)], grid[min(best + 1, samples)]
            for _ in range(40):
                third = (b - a) / 3
                if abs(error(a + third)) < abs(error(b - third)):
                    a += third
                else:
                    b -= third
            runs.append(max([(a + b) / 2, grid[best]], key=lambda z: abs(error(z))))
            start = i
    return runs


def strongest_alternation(points, error, n):
    """Drops the smallest extrema, in neighbouring pairs where they are inside, until n alternating ones are left."""
    points = list(points)
    while len(points) > n:
        smallest = min(range(len(points)), key=lambda i: abs(error(points[i])))
        if smallest in (0, len(points) - 1) or len(points) == n + 1:
            points.pop(0 if abs(error(points[0])) < abs(error(points[-1])) else -1)
        else:
            other = min((smallest - 1, smallest + 1), key=lambda i: abs(error(points[i])))
            points = [z for i, z in enumerate(points) if i not in (smallest, other)]
    return points


def minimax(target, weight, low, high, numerator, denominator, rounds=30, quiet=True):
    """P(z) / Q(z), with Q(0) = 1, that minimises the largest weight(z) * |P / Q - target(z)| on [low, high].

    numerator, denominator: lists of (power, fixed value or None); Q's constant 1 is implied. Returns (p, q, error) with p
    and q as dictionaries from power to coefficient.
    """
    free_p = [k for k, value in numerator if value is None]
    free_q = [k for k, value in denominator if value is None]
    fixed_p = {k: mpf(value) for k, value in numerator if value is not None}
    fixed_q = {k: mpf(value) for k, value in denominator if value is not None} | {0: mpf(1)}
    n = len(free_p) + len(free_q) + 1
    low, high = mpf(low), mpf(high)
    points = [low + (high - low) * (1 - cos(pi * (i + mpf(1) / 2) / n)) / 2 for i in range(n)]
    p, q, level = {}, {}, mpf(0)
    for round_number in range(rounds):
        wanted = [(target(z), weight(z)) for z in points]
        for _ in range(40):
            rows, right = matrix(n, n), matrix(n, 1)
            for i, z in enumerate(points):
                f, w = wanted[i]
                sign = 1 if i % 2 == 0 else -1
                reach = f + sign * level / w
                for j, k in enumerate(free_p):
                    rows[i, j] = z**k
                for j, k in enumerate(free_q):
                    rows[i, len(free_p) + j] = -reach * z**k
                old_q = sum(c * z**k for k, c in (fixed_q | q).items())
                rows[i, n - 1] = -sign / w * old_q
                right[i] = (
                    reach * sum(c * z**k for k, c in fixed_q.items())
                    - sum(c * z**k for k, c in fixed_p.items())
                    - sign * level / w * old_q
                )
            solution = lu_solve(rows, right)
            before = level
            p = {k: solution[j] for j, k in enumerate(free_p)}
            q = {k: solution[len(free_p) + j] for j, k in enumerate(free_q)}
            level = solution[n - 1]
            if not q or abs(level - before) < mpf(10) ** -30 * abs(level):
                break

        def value(z):
            top = sum(c * z**k for k, c in (fixed_p | p).items())
            return top / sum(c * z**k for k, c in (fixed_q | q).items())

        def error(z):
            return weight(z) * (value(z) - target(z))

        found = extrema(error, low, high)
        found = strongest_alternation(found, error, n)
        largest = max(abs(error(z)) for z in found)
        if not quiet:
            print(round_number, len(found), float(level), float(largest))
        if len(found) < n:
            break
        points = found
        if largest < abs(level) * mpf("1.0001"):
            break
    return fixed_p | p, fixed_q | q, largest
