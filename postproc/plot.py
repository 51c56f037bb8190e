#!/usr/bin/env python3
"""Pictures and tables from the results of a Quorate run.

Draws the share of each option over time with the decision and the quorum marked (shares.png, shares.pdf) and, for
lattices and rings with snapshots, how the votes lie in space (snapshots.png, snapshots.pdf); where states lay in pages, in
which tier they were and what moved (paging.png, paging.pdf). Reads series.h5, snapshots.h5 and metrics.jsonl of a finished,
a running or a killed run. Needs numpy, h5py and matplotlib.

Exit codes: 0 done, 2 wrong usage, 3 a package is missing or the output cannot be written, 4 results missing or damaged.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

# A running job holds a lock on its files; looking at them is safe.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

try:
    import h5py
    import numpy as np
except ImportError as error:
    # Another python3 stands first on PATH (pyenv, conda); the packages belong to the distribution's.
    SYSTEM_PYTHON = "/usr/bin/python3"
    if __name__ == "__main__" and os.access(SYSTEM_PYTHON, os.X_OK) and "QUORATE_PLOT_AGAIN" not in os.environ:
        os.environ["QUORATE_PLOT_AGAIN"] = "1"
        os.execv(SYSTEM_PYTHON, [SYSTEM_PYTHON, *sys.argv])
    sys.exit(f"plot.py: {error}; install python3-numpy, python3-h5py and python3-matplotlib")

# Okabe and Ito's palette: told apart by people with any common colour blindness. Ordered by contrast on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
OTHERS = "#9A9A9A"
MISSING = "#FFFFFF"
MAX_CURVES = len(PALETTE)
MAX_POINTS = 4000
MAX_PIXELS = 1200
# From where agents are computed to where it takes longest; and pages on their way to a disk.
TIERS = {"gpu": "#0072B2", "cpu": "#56B4E9", "nvme": "#009E73", "ssd": "#E69F00", "hdd": "#D55E00", "leaving": "#B8B8B8"}


class ResultsError(Exception):
    """What is wrong with the results, in words for the user."""


@dataclass
class Run:
    """What the files of one results directory hold."""

    directory: Path
    step: np.ndarray  # [T] int64
    tally: np.ndarray  # [T][K] uint64
    decided: np.ndarray  # [T] bool
    winner: np.ndarray  # [T] int64
    title: str = ""
    agents: int = 0
    deck: dict[str, str] = field(default_factory=dict)  # "section.key" -> text of the value

    @property
    def options(self) -> int:
        return self.tally.shape[1]

    @property
    def shares(self) -> np.ndarray:
        return self.tally / max(self.agents, 1)

    def decision(self) -> int | None:
        """Row of the decision, or None."""
        rows = np.flatnonzero(self.decided)
        return int(rows[0]) if rows.size else None

    def quorum(self) -> Fraction | None:
        try:
            return Fraction(self.deck.get("consensus.quorum", "").replace(" ", ""))
        except (ValueError, ZeroDivisionError):
            return None

    def decision_text(self) -> str:
        row = self.decision()
        if row is None:
            return f"no decision within {self.step[-1]:,} steps"
        winner = int(self.winner[row])
        share = 100 * self.shares[row, winner]
        return f"option {winner} at step {self.step[row]:,} ({share:.1f} %)"


def attribute(thing, name: str, otherwise):
    """An HDF5 attribute as a Python value."""
    if name not in thing.attrs:
        return otherwise
    value = thing.attrs[name]
    if isinstance(value, np.ndarray) and value.shape == (1,):
        value = value[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def read_deck(text: str) -> dict[str, str]:
    """The values of used.yml: two levels, one value a line. Not a YAML parser."""
    values: dict[str, str] = {}
    section = ""
    for line in str(text).splitlines():
        line = re.sub(r"\s+#.*$", "", line.rstrip())
        if match := re.match(r"^(\w+):\s*$", line):
            section = match[1]
        elif match := re.match(r"^\s+(\w+):\s*(.*)$", line):
            values[f"{section}.{match[1]}"] = match[2].strip().strip("\"'")
    return values


def read_list(text: str) -> list[str]:
    return [item.strip() for item in text.strip().strip("[]").split(",") if item.strip()]


def open_results(path: Path) -> h5py.File:
    """Opens a file for reading, also while it is being written or after its writer was killed."""
    if not path.is_file():
        raise ResultsError(f"{path} is missing")
    first = None
    for options in ({}, {"swmr": True}):
        try:
            return h5py.File(path, "r", **options)
        except OSError as error:
            first = first or error
    raise ResultsError(f"{path} cannot be opened: {first}")


def read_run(directory: Path) -> Run:
    if not directory.is_dir():
        raise ResultsError(f"{directory} is not a directory")
    path = directory / "series.h5"
    with open_results(path) as file:
        try:
            group = file["series"]
            columns = {name: group[name] for name in ("step", "tally", "winner", "decided")}
            # After a kill one dataset may have been extended and the next one not yet.
            rows = min(dataset.shape[0] for dataset in columns.values())
            data = {name: dataset[:rows] for name, dataset in columns.items()}
        except (KeyError, OSError, IndexError) as error:
            raise ResultsError(f"{path} is not a series of Quorate, or is damaged: {error}") from error
        if rows == 0 or data["tally"].ndim != 2 or data["tally"].shape[1] == 0:
            raise ResultsError(f"{path} holds no rows yet")
        used = directory / "used.yml"
        text = attribute(file, "deck", "") or (used.read_text(errors="replace") if used.is_file() else "")
        agents = int(attribute(file, "n_agents", 0)) or int(data["tally"][0].sum())
        # Rows that were reserved but not written before a kill hold zeros.
        written = np.flatnonzero(data["tally"].sum(axis=1, dtype=np.uint64) == agents)
        if written.size == 0:
            raise ResultsError(f"{path} holds no complete row")
        end = int(written[-1]) + 1
        return Run(
            directory=directory,
            step=data["step"][:end].astype(np.int64),
            tally=data["tally"][:end],
            decided=data["decided"][:end].astype(bool),
            winner=data["winner"][:end].astype(np.int64),
            title=str(attribute(file, "title", "")),
            agents=agents,
            deck=read_deck(text),
        )


def option_labels(run: Run) -> list[str]:
    qualities = read_list(run.deck.get("model.qualities", ""))
    if run.deck.get("model.rule") == "best_of_n" and len(qualities) == run.options:
        return [f"option {k} (quality {float(q):g})" for k, q in enumerate(qualities)]
    return [f"option {k}" for k in range(run.options)]


def chosen_options(run: Run) -> list[int]:
    """The options that get a curve and a colour of their own: all, or those with the largest shares at any time."""
    if run.options <= MAX_CURVES:
        return list(range(run.options))
    peak = run.tally.max(axis=0).astype(np.float64)
    peak += run.tally[-1] / (run.agents + 1.0)
    order = np.argsort(-peak, kind="stable")
    return sorted(int(k) for k in order[: MAX_CURVES - 1])


def thin(run: Run, log_time: bool) -> np.ndarray:
    """Row indices to draw: at most MAX_POINTS, spread as the time axis is."""
    rows = len(run.step)
    if rows <= MAX_POINTS:
        return np.arange(rows)
    if log_time:
        picks = np.unique(np.geomspace(1, rows, MAX_POINTS).astype(np.int64) - 1)
    else:
        picks = np.linspace(0, rows - 1, MAX_POINTS).astype(np.int64)
    extra = [row for row in (0, run.decision(), rows - 1) if row is not None]
    return np.unique(np.concatenate([picks, extra]))


def wants_log_time(run: Run) -> bool:
    """True when most of what happens would be squeezed into the first pixels of a linear axis."""
    span = run.step[-1] - run.step[0]
    if span < 100:
        return False
    # Smoothed over a fiftieth of the run, so that noise around a steady state does not count as an event.
    window = max(1, len(run.step) // 50)
    change = np.abs(run.shares[window:] - run.shares[:-window]).sum(axis=1)
    change = np.clip(change - np.median(change), 0, None)
    if change.sum() <= 0:
        return False
    middle = int(np.searchsorted(np.cumsum(change), 0.5 * change.sum()))
    return bool(run.step[min(middle + window, len(run.step) - 1)] - run.step[0] < 0.04 * span)


def style():
    """Sets matplotlib up for a figure of a paper; returns pyplot."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        sys.exit(f"plot.py: {error}; install python3-matplotlib, or use --table")
    plt.rcParams.update(
        {
            "font.size": 9,
            "font.family": "sans-serif",
            "axes.titlesize": 9.5,
            "axes.labelsize": 9,
            "legend.fontsize": 8,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.7,
            "xtick.major.width": 0.7,
            "ytick.major.width": 0.7,
            "lines.solid_capstyle": "round",
            "pdf.fonttype": 42,  # text stays text
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "savefig.pad_inches": 0.04,
        }
    )
    return plt


def save(figure, directory: Path, name: str) -> list[Path]:
    paths = [directory / f"{name}.png", directory / f"{name}.pdf"]
    for path in paths:
        # Complete or absent: a picture half written must not be taken for one that is up to date.
        part = path.with_name(f".{path.name}.part")
        figure.savefig(part, format=path.suffix[1:])
        part.replace(path)
    return paths


PLACES = {
    "complete": "a complete graph",
    "lattice2d": "a 2-D lattice",
    "lattice3d": "a 3-D lattice",
    "erdos_renyi": "an Erdos-Renyi graph",
    "random_regular": "a random regular graph",
    "scale_free": "a scale-free network",
    "edge_list": "a given network",
}


def heading(run: Run) -> str:
    title = run.title or run.deck.get("run.title", "")
    rule, kind = run.deck.get("model.rule", ""), run.deck.get("network.kind", "")
    details = f"{run.agents:,} agents"
    if rule and kind:
        rule = "Potts" if rule == "potts" else rule.replace("_", "-")
        details = f"{rule} on {PLACES.get(kind) or 'a ' + kind.replace('_', ' ')}, {details}"
    return f"{title}: {details}" if title else details


def draw_shares(run: Run, time: str):
    plt = style()
    log_time = time == "log" or (time == "auto" and wants_log_time(run))
    rows = thin(run, log_time)
    step, shares = run.step[rows], run.shares[rows]
    labels, chosen = option_labels(run), chosen_options(run)
    row = run.decision()
    winner = int(run.winner[row]) if row is not None else -1

    figure, axes = plt.subplots(figsize=(5.6, 3.1))
    points = {"marker": "o", "markersize": 3} if len(rows) <= 25 else {}
    others = [np.delete(shares, chosen, axis=1)] if len(chosen) < run.options else []
    for rest in others:
        axes.plot(step, rest.max(axis=1), color=OTHERS, lw=1.0, zorder=2,
                  label=f"largest of {run.options - len(chosen)} others", **points)
    for colour, k in zip(PALETTE, chosen):
        axes.plot(step, shares[:, k], color=colour, lw=2.0 if k == winner else 1.3, zorder=4 if k == winner else 3,
                  label=labels[k], **points)

    largest = float(shares.max())
    top = 1.03 if largest > 0.3 else 1.2 * largest
    bottom = -0.02 * top
    least = min([float(shares[:, chosen].min())] + [float(rest.max(axis=1).min()) for rest in others])
    zoomed = 0 < largest - least < 0.2 * largest
    if zoomed:
        bottom, top = least - 0.08 * (largest - least), largest + 0.08 * (largest - least)
    axes.set_ylim(bottom, top)
    quorum = run.quorum()
    if quorum is not None and float(quorum) <= top:
        axes.axhline(float(quorum), color="#555555", lw=0.8, ls=(0, (4, 3)), zorder=1)
        axes.annotate(f"quorum {100 * float(quorum):.4g} %", (0, float(quorum)), xycoords=("axes fraction", "data"),
                      xytext=(4, -3), textcoords="offset points", ha="left", va="top", fontsize=7.5, color="#555555")

    first, last = int(step[0]), int(step[-1])
    if log_time:
        axes.set_xscale("symlog", linthresh=1, linscale=0.4)
        axes.set_xlim(first, last * 1.02)
        axes.xaxis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    else:
        margin = 0.01 * max(last - first, 1)
        axes.set_xlim(first - margin, last + margin)
        axes.ticklabel_format(axis="x", style="plain", useOffset=False)
        axes.xaxis.set_major_locator(plt.MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if row is not None:
        axes.axvline(int(run.step[row]), color="#222222", lw=0.9, ls=":", zorder=1)
        axes.plot([run.step[row]], [run.shares[row, winner]], "o", ms=4.5, color="#222222", zorder=5, clip_on=False)
    axes.set_xlabel("step" + (" (logarithmic)" if log_time else ""))
    axes.set_ylabel("share of agents" + (" (not from 0)" if zoomed else ""))
    axes.set_title(heading(run), loc="left", pad=16)
    text = "decided: " + run.decision_text() if row is not None else run.decision_text()
    axes.annotate(text, (0, 1), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points", fontsize=8,
                  color=PALETTE[chosen.index(winner)] if winner in chosen else "#555555", annotation_clip=False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=1.4, borderaxespad=0.2)
    return figure


@dataclass
class Snapshots:
    steps: list[int]
    votes: list[np.ndarray]  # each [rows][columns] uint8, thinned to at most MAX_PIXELS a side
    shape: list[int]  # the lattice: x, y, z
    slice_z: int | None = None
    stride: int = 1


def lattice_shape(run: Run, votes: h5py.Dataset) -> list[int]:
    """x, y, z of a lattice; [N] for a ring; [] for other networks."""
    size = attribute(votes, "size", None)
    if size is not None:
        shape = [int(n) for n in np.atleast_1d(size)]
    elif run.deck.get("network.kind") == "ring":
        shape = [run.agents]
    elif run.deck.get("network.kind", "").startswith("lattice"):
        shape = [int(float(n.replace("_", ""))) for n in read_list(run.deck.get("network.size", ""))]
    else:
        return []
    return shape if shape and int(np.prod(shape, dtype=np.int64)) == votes.shape[1] else []


def pick_rows(steps: np.ndarray, n: int) -> list[int]:
    """First, last, and in between rows about evenly spread in the logarithm of time: ordering slows down as it goes."""
    if len(steps) <= n:
        return list(range(len(steps)))
    later = np.maximum(steps - steps[0], 1).astype(np.float64)
    targets = np.geomspace(max(later[1], later[-1] / 1e4), later[-1], n - 1)
    picks = [0] + [int(np.argmin(np.abs(np.log(later[1:] / t)))) + 1 for t in targets]
    unused = [row for row in range(len(steps)) if row not in picks]
    picks = sorted(set(picks))
    while len(picks) < n and unused:
        picks = sorted(picks + [unused.pop()])
    return picks


def read_snapshots(run: Run, n: int) -> Snapshots | None:
    """None when there is nothing that can be drawn in space."""
    path = run.directory / "snapshots.h5"
    if not path.is_file():
        return None
    with open_results(path) as file:
        try:
            votes, steps = file["votes"], file["step"][:]
        except (KeyError, OSError) as error:
            raise ResultsError(f"{path} is not a snapshot file of Quorate, or is damaged: {error}") from error
        shape = lattice_shape(run, votes)
        count = min(votes.shape[0], len(steps))
        if not shape or count == 0:
            return None
        steps = steps[:count]
        # Rows reserved but not written before a kill.
        count = int(np.flatnonzero(np.diff(steps) <= 0)[0]) + 1 if np.any(np.diff(steps) <= 0) else count
        steps = steps[:count]
        if len(shape) == 1:
            if count < 2:
                return None
            rows = np.unique(np.linspace(0, count - 1, min(count, MAX_PIXELS)).astype(np.int64))
            stride = -(-shape[0] // MAX_PIXELS)
            diagram = np.stack([votes[int(row), ::stride] for row in rows])
            return Snapshots([int(steps[row]) for row in rows], [diagram], shape, stride=stride)
        plane = shape[0] * shape[1]
        slice_z = shape[2] // 2 if len(shape) == 3 else None
        start = plane * (slice_z or 0)
        stride = -(-max(shape[:2]) // MAX_PIXELS)
        picks = pick_rows(steps, n)
        try:
            images = [
                votes[row, start : start + plane].reshape(shape[1], shape[0])[::stride, ::stride] for row in picks
            ]
        except OSError as error:
            raise ResultsError(f"{path}: the votes cannot be read: {error}") from error
        return Snapshots([int(steps[row]) for row in picks], images, shape, slice_z, stride)


def draw_snapshots(run: Run, snapshots: Snapshots):
    plt = style()
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    chosen, labels = chosen_options(run), option_labels(run)
    colours = [OTHERS] * run.options + [MISSING] * (256 - run.options)
    for colour, k in zip(PALETTE, chosen):
        colours[k] = colour
    look = {"cmap": ListedColormap(colours), "vmin": -0.5, "vmax": 255.5, "interpolation": "nearest", "origin": "lower"}

    if len(snapshots.shape) == 1:
        figure, axes = plt.subplots(figsize=(4.6, 3.4))
        axes.imshow(snapshots.votes[0], aspect="auto",
                    extent=(0, snapshots.shape[0], snapshots.steps[0], snapshots.steps[-1]), **look)
        axes.set_xlabel("agent along the ring")
        axes.set_ylabel("step")
        axes.set_title(heading(run), loc="left")
        anchor = axes
    else:
        n = len(snapshots.votes)
        ratio = snapshots.shape[1] / snapshots.shape[0]
        width = 1.75
        figure, panels = plt.subplots(1, n, figsize=(width * n, width * min(ratio, 3.0) + 0.45), squeeze=False)
        for axes, image, step in zip(panels[0], snapshots.votes, snapshots.steps):
            axes.imshow(image, **look)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set(visible=True, linewidth=0.6, color="#555555")
            axes.set_title(f"step {step:,}", fontsize=8.5, pad=3)
        figure.subplots_adjust(wspace=0.06)
        size = " × ".join(f"{n:,}" for n in snapshots.shape)
        if snapshots.slice_z is not None:
            size += f", layer z = {snapshots.slice_z}"
        if snapshots.stride > 1:
            size += f" (every {snapshots.stride}th agent)"
        panels[0][0].set_xlabel(size, loc="left", fontsize=7.5, color="#555555")
        anchor = panels[0][-1]

    handles = [Patch(facecolor=colours[k], edgecolor="none", label=labels[k]) for k in chosen]
    if len(chosen) < run.options:
        handles.append(Patch(facecolor=OTHERS, label=f"{run.options - len(chosen)} others"))
    anchor.legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, handlelength=1.0,
                  handleheight=1.0, borderaxespad=0.2)
    return figure


@dataclass
class Paging:
    """What metrics.jsonl says of pages; rates between one line and the next."""

    step: np.ndarray  # [T], ascending
    residency: dict[str, np.ndarray]  # tier, or "leaving" -> [T] bytes
    moved: dict[tuple[str, str], np.ndarray]  # (from, to) -> [T] bytes a step, up to that line


def read_paging(run: Run) -> Paging | None:
    """None when no states were paged. Lines of earlier attempts stand before those of a restart; the last may be cut."""
    path = run.directory / "metrics.jsonl"
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "paging" in line and (not lines or line["step"] > lines[-1]["step"]):
            lines.append(line)
    if not lines:
        return None
    try:
        step = np.array([line["step"] for line in lines], dtype=np.int64)
        paging = [line["paging"] for line in lines]
        page = np.array([one["page_bytes"] for one in paging], dtype=np.float64)
        residency = {
            tier: page * [one["pages_leaving"] if tier == "leaving" else one["pages_in"].get(tier, 0) for one in paging]
            for tier in TIERS
        }
        totals = [{(link["from"], link["to"]): float(link["bytes"]) for link in one["links"]} for one in paging]
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{path} is damaged, or of another version: {error} is missing") from error
    order = list(TIERS)
    ends = sorted({ends for one in totals for ends in one}, key=lambda ends: [order.index(tier) for tier in ends])
    moved = {}
    for link in ends:
        total = np.array([one.get(link, 0.0) for one in totals])
        since = np.diff(total, prepend=0.0)
        since[since < 0] = total[since < 0]  # counted from 0 again after a restart
        moved[link] = since / np.maximum(np.diff(step, prepend=0), 1)
    return Paging(step, {tier: bytes_in for tier, bytes_in in residency.items() if bytes_in.any()}, moved)


def unit_of(most: float) -> tuple[float, str]:
    """A power of 1000 and its name."""
    names = ("B", "kB", "MB", "GB", "TB", "PB")
    power = int(np.clip(np.log10(max(most, 1.0)) // 3, 0, len(names) - 1))
    return 1000.0**power, names[power]


def draw_paging(run: Run, paging: Paging):
    plt = style()
    rows = np.unique(np.linspace(0, len(paging.step) - 1, min(len(paging.step), MAX_POINTS)).astype(np.int64))
    step = paging.step[rows]
    figure, (above, below) = plt.subplots(2, 1, figsize=(5.6, 4.4), sharex=True, height_ratios=(1, 1))
    bytes_in = {tier: values[rows] for tier, values in paging.residency.items()}
    scale, unit = unit_of(float(sum(bytes_in.values()).max()))
    names = {"leaving": "on the way\nto a disk"}
    # What a lone line of metrics says is drawn as if it went on.
    wide = step if len(step) > 1 else np.array([step[0] - 0.5, step[0] + 0.5])
    above.stackplot(wide, *[np.broadcast_to(values / scale, wide.shape) for values in bytes_in.values()],
                    colors=[TIERS[tier] for tier in bytes_in], labels=[names.get(tier, tier) for tier in bytes_in],
                    linewidth=0)
    above.set_ylim(0, 1.02 * float(sum(bytes_in.values()).max()) / scale)
    above.set_ylabel(f"states in each tier ({unit})")
    above.set_title(heading(run), loc="left")
    handles, labels = above.get_legend_handles_labels()
    above.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False,
                 handlelength=1.0, handleheight=1.0, borderaxespad=0.2)

    later = rows[paging.step[rows] > 0] if len(rows) > 1 else rows
    moved = {link: values[later] for link, values in paging.moved.items() if values[later].any()}
    scale, unit = unit_of(max((float(values.max()) for values in moved.values()), default=1.0))
    top = list(paging.residency)[0]
    for (source, target), values in moved.items():
        up = target == top
        # Coloured by the slower end; what comes is drawn through, what leaves broken.
        x = paging.step[later] if len(later) > 1 else wide
        below.plot(x, np.broadcast_to(values / scale, x.shape), color=TIERS[source if up else target], lw=1.4,
                   ls="-" if up else (0, (1.5, 1.2)) if source != top else (0, (4, 1.6)), label=f"{source} to {target}",
                   marker="o" if 1 < len(later) <= 25 else None, markersize=2.6)
    below.set_ylim(bottom=0)
    below.set_ylabel(f"moved a step ({unit})")
    below.set_xlabel("step")
    below.xaxis.set_major_locator(plt.MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
    below.xaxis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    below.set_xlim(wide[0], wide[-1])
    if len(step) == 1:
        below.set_xticks(step)
    if moved:
        below.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=2.0, borderaxespad=0.2)
    figure.align_ylabels()
    figure.subplots_adjust(hspace=0.12)
    return figure


def print_table(run: Run, rows: int) -> None:
    """At most `rows` rows, evenly spread, with the decision among them."""
    picks = np.unique(np.linspace(0, len(run.step) - 1, min(rows, len(run.step))).astype(np.int64))
    if run.decision() is not None:
        picks = np.unique(np.append(picks, run.decision()))
    chosen = chosen_options(run)
    width = max(len(f"{run.step[-1]}"), 4)
    others = len(chosen) < run.options
    print(heading(run))
    print(f"{'step':>{width}}  leads  " + " ".join(f"{f'opt {k}':>8}" for k in chosen) + ("   others" if others else ""))
    for row in picks:
        shares = 100 * run.shares[row]
        line = f"{run.step[row]:>{width}}  {run.winner[row]:>5}  " + " ".join(f"{shares[k]:>6.2f} %" for k in chosen)
        if others:
            line += f" {100 - shares[chosen].sum():>6.2f} %"
        print(line + ("  <- decided" if row == run.decision() else ""))
    print(f"decision: {run.decision_text()}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Draws the results of a Quorate run.")
    parser.add_argument("results", type=Path, help="results directory: holds series.h5")
    parser.add_argument("-o", "--output", type=Path, help="where the pictures go (default: the results directory)")
    parser.add_argument("--time", choices=("auto", "linear", "log"), default="auto", help="time axis (default: auto)")
    parser.add_argument("--snapshots", type=int, default=4, metavar="N", help="how many lattice pictures (default: 4)")
    parser.add_argument("--table", action="store_true", help="print a table instead of drawing")
    parser.add_argument("--rows", type=int, default=20, help="rows of the table (default: 20)")
    arguments = parser.parse_args()
    if arguments.snapshots < 2 or arguments.rows < 1:
        parser.error("--snapshots takes 2 or more, --rows 1 or more")
    try:
        run = read_run(arguments.results)
        if arguments.table:
            print_table(run, arguments.rows)
            return 0
        snapshots = read_snapshots(run, arguments.snapshots)
        paging = read_paging(run)
    except ResultsError as error:
        print(f"plot.py: {error}", file=sys.stderr)
        return 4
    output = arguments.output or arguments.results
    try:
        output.mkdir(parents=True, exist_ok=True)
        paths = save(draw_shares(run, arguments.time), output, "shares")
        if snapshots is not None:
            paths += save(draw_snapshots(run, snapshots), output, "snapshots")
        if paging is not None:
            paths += save(draw_paging(run, paging), output, "paging")
    except OSError as error:
        print(f"plot.py: cannot write: {error}", file=sys.stderr)
        return 3
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        # Someone looked at the head of the table only.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
