"""postproc/plot.py on results written here: what it draws, what the table says, and what it says of broken results."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

PLOT = Path(os.environ["SOURCE_DIR"]) / "postproc" / "plot.py"
failures = 0


def check(name: str, holds: bool) -> None:
    global failures
    print(("ok    " if holds else "FAIL  ") + name)
    failures += not holds


def plot(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, PLOT, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def plot_files(directory: Path) -> list[str]:
    """Names of the pictures, after it has been drawn."""
    result = plot(directory)
    return sorted(Path(line).name for line in result.stdout.splitlines()) if result.returncode == 0 else [result.stderr]


def write_results(directory: Path, tallies: np.ndarray, decided_from: int | None = None, deck: str = "") -> None:
    """A series of `tallies` [T][K], one row a step."""
    directory.mkdir(parents=True)
    rows = len(tallies)
    with h5py.File(directory / "series.h5", "w") as file:
        file.attrs["deck"] = deck
        file.attrs["title"] = "A test"
        file.attrs["n_agents"] = int(tallies[0].sum())
        group = file.create_group("series")
        group["step"] = np.arange(rows, dtype=np.int64)
        group["tally"] = tallies.astype(np.uint64)
        group["winner"] = tallies.argmax(axis=1).astype(np.int64)
        group["leader"] = np.zeros(rows, dtype=np.int64)
        group["decided"] = np.array([decided_from is not None and t >= decided_from for t in range(rows)], dtype=np.int64)


def pixels(path: Path) -> np.ndarray:
    import matplotlib.image

    return (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)


def holds_colour(image: np.ndarray, colour: str) -> bool:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(image - wanted).max(axis=2) <= 2).sum() > 20)


with tempfile.TemporaryDirectory() as scratch:
    scratch = Path(scratch)
    share = np.linspace(0.4, 1.0, 31)
    two = np.stack([1000 * (1 - share), 1000 * share], axis=1).round().astype(int)
    quorum = "consensus:\n  quorum: 9/10  # default\n"

    write_results(scratch / "decided", two, 25, quorum)
    result = plot(scratch / "decided")
    names = ["shares.png", "shares.pdf"]
    check("a series: exit code 0", result.returncode == 0)
    check("a series: a PNG and a PDF", all((scratch / "decided" / name).stat().st_size > 1000 for name in names))
    check("a series: no snapshots", not (scratch / "decided" / "snapshots.png").exists())
    image = pixels(scratch / "decided" / "shares.png")
    check("a series: a curve for each option", holds_colour(image, "#0072B2") and holds_colour(image, "#D55E00"))
    check("a series: 200 dots an inch", image.shape[1] > 900)
    table = plot(scratch / "decided", "--table").stdout
    check("a table: the decision", "decision: option 1 at step 25 (90.0 %)" in table)
    check("a table: the row of the decision", any(line.split()[0] == "25" and "<- decided" in line
                                                   for line in table.splitlines()[2:-1]))
    check("elsewhere: pictures go there", plot(scratch / "decided", "-o", scratch / "figures").returncode == 0
          and (scratch / "figures" / "shares.pdf").exists())

    lattice = quorum + "network:\n  kind: lattice2d\n  size: [30, 20]\n"
    board = np.zeros((20, 30), dtype=np.uint8)
    board[:, 15:] = 1
    votes = np.stack([board.ravel(), 1 - board.ravel(), board.ravel()])
    write_results(scratch / "lattice", np.tile([300, 300], (3, 1)), None, lattice)
    with h5py.File(scratch / "lattice" / "snapshots.h5", "w") as file:
        file["votes"], file["step"] = votes, np.array([0, 10, 20])
    check("a lattice: exit code 0", plot(scratch / "lattice").returncode == 0)
    image = pixels(scratch / "lattice" / "snapshots.png")
    blue = np.abs(image - [0x00, 0x72, 0xB2]).max(axis=2) <= 2
    columns = np.flatnonzero(blue.sum(axis=0) > 50)
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 5) + 1)
    widths = [len(run) for run in runs if len(run) > 40]
    check("a lattice: half of each of three boards is blue", len(widths) == 3 and max(widths) - min(widths) < 12)

    many = np.tile(np.arange(1, 257), (10, 1))
    write_results(scratch / "many", many)
    result = plot(scratch / "many", "--table")
    check("256 options: the strongest and the others", "opt 255" in result.stdout and "others" in result.stdout)
    check("256 options: drawn", plot(scratch / "many").returncode == 0)

    write_results(scratch / "killed", two)
    with h5py.File(scratch / "killed" / "series.h5", "a") as file:
        for name in ("step", "winner"):
            whole = file["series"][name][:]
            del file["series"][name]
            file["series"][name] = whole[:20]
    check("a killed run: drawn up to the last whole row", "within 19 steps" in plot(scratch / "killed", "--table").stdout)

    # A step is 100 pages of 1 MB, of which 60 come from nvme and as many leave; a restart counts from 0 again.
    write_results(scratch / "paged", np.tile([500, 500], (9, 1)) + np.arange(9)[:, None] * [1, -1])
    with open(scratch / "paged" / "metrics.jsonl", "w") as file:
        for step in (2, 4, 6, 8):
            bytes_each = 60e6 * (step if step <= 4 else step - 4)
            links = [{"from": "cpu", "to": "nvme", "bytes": bytes_each}, {"from": "nvme", "to": "cpu", "bytes": bytes_each}]
            file.write(json.dumps({"step": step, "paging": {"page_bytes": 1000000, "pages_in": {"cpu": 40, "nvme": 50},
                                                             "pages_leaving": 10, "links": links}}) + "\n")
        file.write('{"step": 10, "pag')
    sys.path.insert(0, str(PLOT.parent))
    sys.dont_write_bytecode = True
    import plot as drawing

    run = drawing.read_run(scratch / "paged")
    paging = drawing.read_paging(run)
    check("pages: where they were", {tier: set(in_it) for tier, in_it in paging.residency.items()}
          == {"cpu": {40e6}, "nvme": {50e6}, "leaving": {10e6}})
    check("pages: what moved in a step, over a restart", list(paging.moved) == [("cpu", "nvme"), ("nvme", "cpu")]
          and all(set(rate) == {60e6} for rate in paging.moved.values()))
    check("pages: drawn", plot_files(scratch / "paged") == ["paging.pdf", "paging.png", "shares.pdf", "shares.png"])
    image = pixels(scratch / "paged" / "paging.png")
    check("pages: an area for each tier", all(holds_colour(image, drawing.TIERS[tier]) for tier in paging.residency))
    check("pages: no picture without them", not (scratch / "decided" / "paging.png").exists())
    check("shares that hardly change: axes that show them", 0.49 < drawing.draw_shares(run, "auto").axes[0].get_ylim()[0] < 0.5)
    check("shares that change: axes from 0", drawing.draw_shares(drawing.read_run(scratch / "decided"), "auto")
          .axes[0].get_ylim()[0] < 0)

    for name, content in {"missing": None, "junk": b"junk" * 100, "empty": b""}.items():
        (scratch / name).mkdir()
        if content is not None:
            (scratch / name / "series.h5").write_bytes(content)
        result = plot(scratch / name)
        check(f"{name}: exit code 4 and one line", result.returncode == 4 and result.stderr.count("\n") == 1
              and "series.h5" in result.stderr)
    check("not a directory: exit code 4", plot(scratch / "nowhere").returncode == 4)
    check("output that cannot be written: exit code 3", plot(scratch / "decided", "-o", "/proc/none").returncode == 3)

sys.exit(failures > 0)
