"""Remez's exchange algorithm: the polynomial of least weighted error, in arbitrary precision (mpmath)."""

from mpmath import cos, lu_solve, matrix, mp, mpf, pi

mp.dps = 50


def evaluate(coefficients, z):
    return sum(c * z**power for power, c in coefficients.items())


def extrema(error, low, high, samples=4000):
    """Where |error| is largest between sign changes: a scan, refined by trisection."""
    grid = [low + (high - low) * (1 - cos(pi * i / samples)) / 2 for i in range(samples + 1)]
    values = [error(z) for z in grid]
    found, start = [], 0
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
            found.append(max([(a + b) / 2, grid[best]], key=lambda z: abs(error(z))))
            start = i
    return found


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


def minimax(target, weight, low, high, degree, fixed, rounds=12):
    """The polynomial p that minimises the largest weight(z) * |p(z) - target(z)| on [low, high].

    fixed: coefficients that are given, by power. Returns all coefficients by power, and the largest error.
    """
    free = [power for power in range(degree + 1) if power not in fixed]
    n = len(free) + 1
    low, high = mpf(low), mpf(high)
    points = [low + (high - low) * (1 - cos(pi * (i + mpf(1) / 2) / n)) / 2 for i in range(n)]
    for _ in range(rounds):
        rows, right = matrix(n, n), matrix(n, 1)
        for i, z in enumerate(points):
            for j, power in enumerate(free):
                rows[i, j] = z**power
            rows[i, n - 1] = (-1) ** i / weight(z)
            right[i] = target(z) - evaluate(fixed, z)
        solution = lu_solve(rows, right)
        coefficients = fixed | {power: solution[j] for j, power in enumerate(free)}

        def error(z):
            return weight(z) * (evaluate(coefficients, z) - target(z))

        found = strongest_alternation(extrema(error, low, high), error, n)
        largest = max(abs(error(z)) for z in found)
        if len(found) < n or largest < abs(solution[n - 1]) * mpf("1.0001"):
            break
        points = found
    return coefficients, largest
