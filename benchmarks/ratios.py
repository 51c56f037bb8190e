#!/usr/bin/env python3
"""Medians over the rounds of run_cpu.sh, and ratios.

    ratios.py DIRECTORY      with the outputs `quorate`, `plain`, `tuned` and `limits`
"""

import re
import statistics
import sys
from pathlib import Path


def read(path: Path) -> dict[str, list[list[str]]]:
    """Lines by case."""
    found: dict[str, list[list[str]]] = {}
    for line in path.read_text().splitlines():
        fields = line.split("\t")
        found.setdefault(fields[0], []).append(fields)
    return found


def median(lines: list[list[str]], column: int = 2) -> float:
    return statistics.median(float(fields[column]) for fields in lines)


def spread(lines: list[list[str]]) -> float:
    rates = [float(fields[2]) for fields in lines]
    return (max(rates) - min(rates)) / statistics.median(rates)


def main() -> None:
    work = Path(sys.argv[1])
    ours, plain, tuned = (read(work / name) for name in ("quorate", "plain", "tuned"))
    limits = [re.findall(r"([\d.]+) G", line) for line in (work / "limits").read_text().splitlines() if line[0] == "#"]
    copy, fma, philox = (statistics.median(float(line[i]) for line in limits) for i in range(3))
    print(f"memory copy {copy:.1f} GB/s, {fma:.1f} G multiply-adds/s, Philox {philox:.1f} G agents/s a pair of planes")
    print()
    print("| case | agents | updates/s | spread | limit | of the limit | NumPy plain | ratio | NumPy tuned | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, lines in ours.items():
        rate, limit = median(lines), median(lines, 4)
        numpy = [median(plain[name]), median(tuned[name])]
        print(
            f"| {name} | {int(lines[0][1]):.3g} | {rate / 1e9:.3g} G | {100 * spread(lines):.0f} % | {lines[0][5]} "
            f"{limit / 1e9:.3g} G | {100 * rate / limit:.0f} % | {numpy[0] / 1e9:.3g} G | {rate / numpy[0]:.1f} "
            f"| {numpy[1] / 1e9:.3g} G | {rate / numpy[1]:.1f} |"
        )


if __name__ == "__main__":
    main()
