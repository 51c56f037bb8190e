"""A dry run opens everything that the run would read, and looks whether results could be written; it writes nothing."""

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "support"))
from side_by_side import side_by_side

QUORATE = os.environ["QUORATE"]
K, D, H, N = 3, 4, 5, 200
SHAPES = {"W1": (H, 2 * K + D), "b1": (H,), "W2": (D, H), "b2": (D,), "Wv": (K, D), "bv": (K,)}
NEURAL = f"""
run: {{steps: 2}}
agents: {{count: {N}, options: {K}}}
model: {{rule: neural, state_dim: {D}, hidden: {H}, weights: weights.h5}}
output: {{directory: out}}
"""
VOTES = f"""
run: {{steps: 2}}
agents: {{count: {N}, options: {K}, initial: file, file: votes.h5}}
output: {{directory: out}}
"""
LIST = """
run: {steps: 2}
model: {zealots: [2, 1]}
network: {kind: edge_list, file: edges.txt}
output: {directory: out}
"""


def quorate(*arguments: str, ranks: int = 1) -> subprocess.CompletedProcess:
    command = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    command += [QUORATE, "run", "deck.yml", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def tree() -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in Path(".").rglob("*") if path.name != "deck.yml")


def dry_runs(deck: str, *arguments: str) -> list[subprocess.CompletedProcess]:
    """On one rank and on three; nothing is written."""
    Path("deck.yml").write_text(deck, encoding="utf-8")
    before = tree()
    done = side_by_side(functools.partial(quorate, "--dry-run", *arguments, ranks=ranks) for ranks in (1, 3))
    assert tree() == before
    return done


def refuses(deck: str, code: int, message: str, *arguments: str) -> None:
    """One rank and three: the same single message; the run says the same."""
    for done in dry_runs(deck, *arguments):
        said = [line for line in done.stderr.splitlines() if line.startswith("quorate: ")]
        assert done.returncode == code, (message, done)
        assert len(said) == 1 and said[0].startswith("quorate: error: ") and message in said[0], (message, done)
        assert "dry run" not in done.stdout, done
    done = quorate(*arguments)
    assert done.returncode == code and message in done.stderr, (message, done)
    assert not Path("out").exists()


def accepts(deck: str, *arguments: str) -> str:
    for done in dry_runs(deck, *arguments):
        assert done.returncode == 0 and done.stderr == "", done
        assert "nothing was written" in done.stdout.splitlines()[-1], done
    return done.stdout


def write_weights(**others: np.ndarray) -> None:
    with h5py.File("weights.h5", "w") as file:
        for name, shape in SHAPES.items():
            values = others.get(name, np.zeros(shape, np.float32))
            if values is not None:
                file[name] = values


def write_votes(votes: np.ndarray) -> None:
    with h5py.File("votes.h5", "w") as file:
        file["votes"] = votes


def test_weights() -> None:
    refuses(NEURAL, 2, "weights.h5: cannot be read: No such file")
    Path("weights.h5").write_text("no HDF5", encoding="utf-8")
    refuses(NEURAL, 4, "weights.h5: ")
    write_weights(W2=None)
    refuses(NEURAL, 2, "weights.h5: has no dataset /W2")
    write_weights(Wv=np.zeros((K, D + 1), np.float32))
    refuses(NEURAL, 2, "weights.h5: /Wv has shape (3, 5); the deck needs (3, 4)")
    write_weights()
    accepts(NEURAL)


def test_votes() -> None:
    refuses(VOTES, 2, "votes.h5: cannot be read: No such file")
    write_votes(np.zeros(N + 1, np.uint8))
    refuses(VOTES, 2, "votes.h5: /votes has shape (201); with 200 agents it must be (200)")
    votes = np.zeros((2, N), np.uint8)
    votes[1, 7] = K
    write_votes(votes)
    refuses(VOTES, 2, "votes.h5: agent 7 votes 3, but options are 0 to 2")
    write_votes(votes[:1])
    accepts(VOTES)


def test_edges() -> None:
    refuses(LIST, 2, "edges.txt: cannot be read: No such file")
    Path("edges.txt").write_text("0 1\n1 x\n", encoding="utf-8")
    refuses(LIST, 2, "edges.txt:2:3: ")
    Path("edges.txt").write_text("0 1\n", encoding="utf-8")
    refuses(LIST, 2, "deck.yml:3:18: model.zealots: 3 zealots in all, but there are only 2 agents")
    Path("edges.txt").write_text("0 1\n1 2\n", encoding="utf-8")
    accepts(LIST)
    # Votes for as many agents as the list has.
    starts = LIST + "agents: {initial: file, file: votes.h5}\n"
    write_votes(np.zeros(4, np.uint8))
    refuses(starts, 2, "votes.h5: /votes has shape (4); with 3 agents it must be (3)")
    write_votes(np.zeros(3, np.uint8))
    accepts(starts)


def test_directory() -> None:
    deck = "agents: {count: 10}\noutput: {directory: out}\n"
    Path("file").write_text("text", encoding="utf-8")
    refuses(deck, 3, "file: cannot be used for results: it is not a directory", "--set", "output.directory=file")
    for directory in ("file/below", "file/below/below"):
        refuses(deck, 3, "the results directory cannot be made: Not a dir", "--set", f"output.directory={directory}")
    refuses(deck, 3, "File name too long", "--set", f"output.directory={'x' * 300}/b")
    os.symlink("nowhere", "link")
    refuses(deck, 3, "error: link: cannot be used for results: No such file", "--set", "output.directory=link")
    Path("used").mkdir()
    Path("used/series.h5").write_bytes(b"")
    refuses(deck, 3, "used: holds results of an earlier run (series.h5)", "--set", "output.directory=used")
    accepts(deck, "--set", "output.directory=used", "--set", "output.overwrite=true")
    for directory in ("out", "deep/er/out", "./out//", str(Path("out").absolute()), "used/below"):
        accepts(deck, "--set", f"output.directory={directory}")
    Path("sealed").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "sealed"], check=False).returncode == 0:
        try:
            refuses(deck, 3, "Read-only file system", "--set", "output.directory=sealed")
            refuses(deck, 3, "Read-only file system", "--set", "output.directory=sealed/deep/er")
        finally:
            subprocess.run(["umount", "sealed"], check=True)


def test_memory_is_an_estimate() -> None:
    """What the plan says of memory leaves out small things, and says so."""
    said = accepts("agents: {count: 1e8}\noutput: {directory: out}\n")
    lines = [line for line in said.splitlines() if "GiB" in line]
    assert len(lines) == 3, said  # two compute ranks and the sum
    assert all("about " in line for line in lines), said


def test_edges_are_counted() -> None:
    """A chain of 100,001 agents: 8 bytes for each, and 4 for either end of an edge."""
    Path("edges.txt").write_text("".join(f"{i} {i + 1}\n" for i in range(100_000)), encoding="utf-8")
    said = accepts("network: {kind: edge_list, file: edges.txt}\noutput: {directory: out}\n")
    found = [float(line.split("network ")[1].split(" MiB")[0]) for line in said.splitlines() if "network " in line]
    assert len(found) == 2 and all(0.7 < each < 7 for each in found), said


def test_colours_are_counted() -> None:
    """On a network of lists Potts keeps a colour of two bytes for each agent, and votes once where voters keep them twice."""
    deck = "agents: {count: 1e6}\nnetwork: {kind: small_world}\noutput: {directory: out}\n"

    def per_agent(rule: str) -> float:
        said = accepts(deck, "--set", f"model.rule={rule}")
        return float(said.split(" bytes an agent")[0].split()[-1])

    votes_saved = 2  # bytes an agent: each of the two compute ranks may see every agent
    assert abs(per_agent("potts") - per_agent("voter") - (2 - votes_saved)) < 0.02, (per_agent("potts"), per_agent("voter"))


def by_itself(name: str) -> None:
    """Each test in a process that has a directory of its own to work in."""
    subprocess.run([sys.executable, __file__, name], check=True)
    print("ok", name, flush=True)


def main() -> int:
    if len(sys.argv) < 2:
        side_by_side([functools.partial(by_itself, name) for name in globals() if name.startswith("test_")])
        return 0
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        for name in sys.argv[1:]:
            globals()[name]()
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
