"""Whole runs: what they leave is read with stock h5py, added up, and the same for any number of ranks and servers."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import h5py
import numpy as np

QUORATE = os.environ["QUORATE"]
DECK = """
run: {title: "Results, naïve", seed: 3, steps: 400, stop: steps}
agents: {options: 3}
model: {rule: voter}
network: {kind: lattice2d, size: [60, 50]}
output: {directory: out, series_every: 1 steps, snapshot_every: 40 steps}
"""
RANKS = [
    (1, []),
    (2, []),
    (3, ["io.ranks_per_node=2"]),
    (4, ["io.ranks_per_node=0"]),
    (5, ["comm.ranks_per_node=3"]),
    (7, ["comm.ranks_per_node=3"]),
    (3, ["output.compression=0", "io.slots=2", "io.slot_size=4 KiB"]),
]


def run(ranks: int, sets: list[str], directory: str) -> subprocess.CompletedProcess:
    command = ["mpirun", "-n", str(ranks), QUORATE, "run", "deck.yml"]
    for value in [f"output.directory={directory}", *sets]:
        command += ["--set", value]

    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def info(path: str) -> subprocess.CompletedProcess:
    return subprocess.run([QUORATE, "info", path], capture_output=True, text=True, timeout=60, check=False)


def check_results(out: Path, said: str) -> str:
    """Everything in the directory belongs together; a digest of the numbers in it."""
    with h5py.File(out / "series.h5") as file, h5py.File(out / "snapshots.h5") as snapshots:
        assert file.attrs["title"] == "Results, naïve"
        assert file.attrs["deck"] == (out / "used.yml").read_text()
        assert file.attrs["n_agents"] == 3000 and file.attrs["n_options"] == 3 and file.attrs["version"]
        assert file.attrs["precision"] == "exact"
        step, tally = file["series/step"][:], file["series/tally"][:]
        assert (np.diff(step) == 1).all() and step[-1] == 400
        assert (tally.sum(axis=1) == 3000).all()
        assert (tally.argmax(axis=1) == file["series/winner"][:]).all()
        leader = file["series/leader"][:]
        assert (leader >= 0).all() and (leader < 3000).all()
        assert (file["series/decided"][:] == 0).all()
        votes, taken = snapshots["votes"][:], snapshots["step"][:]
        assert votes.shape == (len(taken), 3000) and (taken % 40 == 0).all() and taken[-1] == 400
        for row, at in zip(votes, taken):
            assert (np.bincount(row, minlength=3) == tally[step == at][0]).all(), at
            assert row[leader[step == at][0]] == tally[step == at][0].argmax()
        for group in (file["series"], snapshots):
            for name in group:
                assert group[name].attrs["unit"] and group[name].attrs["meaning"], name
    assert f"{tally[-1].max()} of 3000 agents" in said, said
    json.loads((out / "summary.json").read_text())
    for line in (out / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    grids = ElementTree.parse(out / "snapshots.xdmf").getroot().findall("./Domain/Grid/Grid")
    assert [float(g.find("Time").attrib["Value"]) for g in grids] == list(taken)
    assert {g.find("Topology").attrib["Dimensions"] for g in grids} == {"50 60"}
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    return hashlib.sha256(tally.tobytes() + leader.tobytes() + votes.tobytes()).hexdigest()


def test_same_results_for_all_ranks() -> None:
    digests = {}
    for i, (ranks, sets) in enumerate(RANKS):
        done = run(ranks, sets, f"out{i}")
        assert done.returncode == 0, (ranks, sets, done.stderr)
        digests[i] = check_results(Path(f"out{i}"), done.stdout)
        looked = info(f"out{i}")
        assert looked.returncode == 0, looked
        assert "401 steps, 0 to 400" in looked.stdout and "11 of 3000 agents, steps 0 to 400" in looked.stdout, looked
    assert len(set(digests.values())) == 1, digests


def test_earlier_results_stay() -> None:
    before = Path("out0/series.h5").stat()
    done = run(2, [], "out0")
    assert done.returncode == 3, done
    assert "out0: holds results of an earlier run" in done.stderr and done.stderr.count("earlier run") == 1, done.stderr
    assert Path("out0/series.h5").stat().st_mtime_ns == before.st_mtime_ns
    done = run(2, ["output.overwrite=true", "run.seed=4"], "out0")
    assert done.returncode == 0, done
    assert Path("out0/series.h5").stat().st_mtime_ns != before.st_mtime_ns
    check_results(Path("out0"), done.stdout)


def test_unusable_directories() -> None:
    Path("file").write_text("text")
    for directory in ("file", "file/below"):
        done = run(2, [], directory)
        assert done.returncode == 3 and f"error: {directory}" in done.stderr, done
    assert Path("file").read_text() == "text"


def test_full_disk() -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", "small"]
    Path("small").mkdir()
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        print("   no right to mount a small file system")
        return
    try:
        for ranks in (1, 2):
            done = run(ranks, ["agents.options=200"], f"small/{ranks}")
            assert done.returncode == 3, done
            assert f"error: small/{ranks}/s" in done.stderr, done.stderr
            assert done.stderr.count("cannot be written: No space left on device") == 1, done.stderr
            with h5py.File(f"small/{ranks}/series.h5") as file:
                rows = {len(file["series"][name]) for name in file["series"]}
                assert len(rows) == 1, rows
            shutil.rmtree(f"small/{ranks}")
    finally:
        subprocess.run(["umount", "small"], check=True)


def test_info_of_other_things() -> None:
    Path("empty.h5").write_bytes(b"")
    Path("noise.h5").write_bytes(os.urandom(100_000))
    whole = Path("out1/series.h5").read_bytes()
    Path("cut.h5").write_bytes(whole[: len(whole) // 2])
    Path("none").mkdir()
    for path, code in [("missing", 2), ("none", 2), ("empty.h5", 4), ("noise.h5", 4), ("cut.h5", 4), ("deck.yml", 4)]:
        done = info(path)
        assert done.returncode == code, (path, done)
        assert done.stderr.startswith(f"quorate: error: {path}: ") and done.stderr.count("\n") == 1, done


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        Path("deck.yml").write_text(DECK, encoding="utf-8")
        for name, test in list(globals().items()):
            if name.startswith("test_"):
                test()
                print("ok", name)
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
