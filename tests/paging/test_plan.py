"""What a user is told: the plan before a run, what is refused, what is under way and what came of it. The promise: a dry run,
and a check for as many ranks, say what the run says, and end as it does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

QUORATE = os.environ["QUORATE"]

DECK = """
run: {seed: 1, steps: 6, stop: steps, progress_every: 1 ms%s}
agents: {count: 16384, options: 3}
model: {rule: %s}
network: {kind: ring, degree: 4}
compute: {backend: cpu}
memory:
  page: 64 KiB
  tiers:
    cpu: {capacity: 256 KiB}
    nvme: {directory: pages/nvme, capacity: 340 KiB}
    hdd: {directory: pages/hdd%s}
output: {directory: out}
"""
NEURAL = "neural, state_dim: 16, hidden: 8"


def deck(rule=NEURAL, hdd="", run=""):
    return DECK % (run, rule, hdd)


def call(text, *arguments, ranks=1):
    with open("deck.yml", "w", encoding="utf-8") as out:
        out.write(text)
    if arguments[0] == "check" and ranks > 1:
        arguments = (*arguments, "--ranks", str(ranks))
    command = [QUORATE, arguments[0], "deck.yml", *arguments[1:]]
    if arguments[0] == "run" and ranks > 1:
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout, done.stderr


def clear():
    for name in ("out", "pages"):
        shutil.rmtree(name, ignore_errors=True)


def written():
    return [name for name in sorted(os.listdir(".")) if name != "deck.yml"]


def plan_lines(out):
    """The plan of paging without what a moment decides: free bytes."""
    lines = [re.sub(r"^# ", "", line) for line in out.splitlines()]
    begin = next(i for i, line in enumerate(lines) if re.match(r"memory: .*(are paged|nothing is paged)", line))
    end = begin + 1
    while end < len(lines) and lines[end].startswith("  "):
        end += 1
    return [re.sub(r"[0-9.]+ [KMGT]?i?B (are free|of it are left alone)", r"\1", line) for line in lines[begin:end]]


def test_words():
    # 16 pages of 64 KiB: 4 in memory, 340 KiB hold 5 with a block for each head, the rest on the last disk.
    plan = ["16 pages of 64 KiB", "cpu   holds 4 pages, 256 KiB", r"nvme  holds 5 pages, 320 KiB; a step moves 5 pages",
            r"hdd   holds 7 pages, 448 KiB; a step moves 7 pages", r"takes about [0-9.]+ times as long",
            r"in pages/nvme: [0-9.]+ [GMT]iB are free, capacity 340 KiB",
            r"in pages/hdd, on the disk of nvme: [0-9.]+ [GMT]iB are free, [0-9.]+ [GMT]iB of it are left alone"]
    for arguments in (["check"], ["run", "--dry-run"]):
        code, out, err = call(deck(), *arguments)
        assert code == 0 and all(re.search(words, out) for words in plan), (arguments, code, out, err)
        assert max(map(len, plan_lines(out))) < 160, out
        assert "votes " in out and "states 256 KiB, network " in out and "buffers " in out, out
    code, out, _ = call(deck(), "check", "--set", "memory.tiers.cpu.capacity=1 MiB")
    assert code == 0 and "nothing is paged" in out, out
    code, out, _ = call(deck("voter"), "check")
    assert code == 0 and "never paged" in out, out
    code, out, _ = call(deck(), "check", "--values")
    assert code == 0 and "memory: " not in out and "seed: 1 " in out, out
    code, out, _ = call(deck(), "check", "--set", "memory.page=4 KiB", "--set", "model.state_dim=64")
    assert code == 0 and "64 agents at the least, which takes more than memory.page, 4 KiB" in out, out
    # Without any tier, what a rank needs is told all the same: 16384 votes, twice, and as many states of 64 bytes.
    bare = re.sub(r"  tiers:\n(    .*\n)+", "", deck())
    code, out, _ = call(bare, "check")
    assert code == 0 and re.search(r"memory: a compute rank needs about .*: votes 32.*, states 1 MiB, network ", out), out
    # More than any machine has.
    code, out, err = call(bare, "check", "--set", "agents.count=1e11")
    assert code == 0 and "use more nodes, memory.tiers with a directory for states that do not fit, or a" in err, err
    assert not written(), written()


def test_sparse():
    # Pages hold 1024 agents: with 1 - (1 - a)^1024 = 0.1 a tenth of the pages is touched.
    code, out, _ = call(deck(run=", activation: 0.00010288"), "check")
    assert code == 0 and "agents of 10 % of the pages move" in out, out
    assert re.search("nvme .* moves about 0.5 pages, 32 KiB", out) and re.search("hdd .* about 0.7 pages, 44.", out), out
    # And so it comes: half of 16 pages in each of 200 steps, and of the 12 that memory does not hold.
    code, out, err = call(deck(run=", activation: 0.00067667").replace("steps: 6", "steps: 200"), "run")
    assert code == 0 and "agents of 50 % of the pages move" in out, (code, out, err)
    with open(os.path.join("out", "summary.json"), encoding="utf-8") as summary:
        paging = json.load(summary)["paging"]
    up = sum(link["pages"] for link in paging["links"] if link["to"] == "cpu")
    assert abs(paging["updated"] - 1600) < 160 and abs(up - 1200) < 180, (paging["updated"], up)


def test_same_plan():
    """The same lines and the same end from check, dry run and run, on one rank and on several of a node, real or not."""
    for ranks, more in ((1, ()), (2, ()), (4, ()), (4, ("--set", "comm.ranks_per_node=2"))):
        said = []
        for arguments in (("check",), ("run", "--dry-run"), ("run",)):
            clear()
            code, out, err = call(deck(hdd=", capacity: 1 MiB"), *arguments, *more, ranks=ranks)
            assert code == 0, (arguments, ranks, out, err)
            said.append(plan_lines(out))
        assert said[0] == said[1] == said[2] and len(said[0]) > 6, (ranks, more, said)
        clear()
        # A node holds 10 of the 16 pages: two nodes of one compute rank each are enough.
        for arguments in (("check",), ("run", "--dry-run"), ("run",)):
            code, out, err = call(deck(hdd=", capacity: 80 KiB"), *arguments, *more, ranks=ranks)
            assert code == (0 if more else 2), (arguments, ranks, more, code, err)
            assert more or ("memory.tiers" in err and not written()), (err, written())


def test_other_jobs():
    code, out, _ = call(deck(), "check", "--ranks", "6", "--nodes=2")
    assert code == 0 and "planned for 4 compute ranks on 2 nodes" in out and "4 pages of 64 KiB" in out, out
    assert "cpu   holds 2 pages" in out, out  # of each node's four, which two compute ranks share
    code, out, _ = call(deck(), "check", "--nodes", "3")
    assert code == 0 and "planned for 3 compute ranks on 3 nodes" in out, out
    for wrong in (("--ranks", "0"), ("--ranks",), ("--nodes=x",), ("--nodes", "3", "--ranks", "2"), ("--ranks", "2x")):
        code, out, err = call(deck(), "check", *wrong)
        assert code == 2 and wrong[0].split("=")[0] in err, (wrong, code, err)
    code, _, err = call(deck(), "run", "--ranks", "2")
    assert code == 2 and "no option '--ranks'" in err, err


def test_refusals():
    for arguments in (["check"], ["run"], ["run", "--dry-run"]):
        code, out, err = call(deck(hdd=", capacity: 400 KiB"), *arguments)
        words = "take 1 MiB (1048576 bytes, 16 pages), and memory.tiers hold 896 KiB (917504 bytes) of"
        assert code == 2 and words in err and "memory.tiers.hdd.capacity" in err, (arguments, code, out, err)
        assert "128 KiB (131072 bytes) are missing" in err, err
        code, out, err = call(deck(hdd=", capacity: 64 KiB"), *arguments)
        assert code == 2 and "memory.tiers.hdd.capacity: does not hold one page of 65536 bytes" in err, (code, err)
        # Pages on their way need slots, too.
        code, out, err = call(deck(), *arguments, "--set", "io.slots=65000", "--set", "memory.prefetch.ahead=300")
        assert code == 2 and "io.slots" in err and "memory.prefetch.ahead" in err and "64932 at most" in err, (code, err)
        # No disk holds four hundred terabytes.
        vast = deck("neural, state_dim: 1024, hidden: 8").replace("16384", "1e11").replace("ring, degree: 4", "complete")
        code, out, err = call(vast.replace("64 KiB", "1 MiB").replace("256 KiB", "1 MiB"), *arguments,
                              "--set", "memory.tiers.nvme.capacity=auto")
        assert code == 3 and re.search(r"4\d\d\.?\d* TiB|372.5 TiB \(409600000000000 bytes", err), (arguments, code, err)
        assert "bytes) are missing" in err and "room on the disk of memory.tiers.hdd.directory" in err, err
        for directory, words in (("deck.yml/pages", "is not a directory"), ("deck.yml", "is not a directory"),
                                 ("nowhere/pages", "No such file")):
            if not os.path.islink("nowhere"):
                os.symlink("nothing", "nowhere")
            code, out, err = call(deck(), *arguments, "--set", f"memory.tiers.hdd.directory={directory}")
            assert code == 3 and f"{directory}: the memory tier's directory cannot be made" in err, (arguments, code, err)
            assert words in err, err
            os.unlink("nowhere")
        assert not written(), written()
    # Nobody needs the directory of a tier that no state goes to.
    code, out, err = call(deck(), "run", "--dry-run", "--set", "memory.tiers.cpu.capacity=1 MiB", "--set",
                          "memory.tiers.hdd.directory=deck.yml/pages")
    assert code == 0, err


def test_gpu():
    """Bytes of a GPU are told, whether one is here or not; a tier that has no effect is told of."""
    limit = ("--set", "memory.tiers.gpu.capacity=128 KiB")
    for arguments in (["check"], ["run", "--dry-run"], ["run"]):
        code, out, err = call(deck(), *arguments, *limit)
        words = "memory.tiers.gpu.capacity is without effect: agents are not computed on a GPU"
        assert code == 0 and err.count(words) == 1, (arguments, code, err)
        clear()
        code, out, err = call(deck(), *arguments)
        assert code == 0 and err == "" and "GPU's" not in out, (arguments, code, err)
        clear()
    for arguments in (["check"], ["run", "--dry-run"]):
        # Four votes fit a byte, with room before and behind, twice; 16 MiB take votes on their way.
        code, out, err = call(deck(), *arguments, *limit, "--set", "compute.backend=cuda")
        assert code == 0 and err == "", (arguments, code, err)
        words = r"of its GPU.*votes 24[.0-9]* KiB, states 128 KiB, network 0 B, buffers 16[.0-9]* MiB"
        assert re.search(words, out) and "gpu   holds 2 pages, 128 KiB" in out, (arguments, out)
        assert "cpu   holds 4 pages, 256 KiB; a step moves 4 pages" in out, out
        code, out, err = call(deck("voter"), *arguments, "--set", "compute.backend=cuda")
        assert code == 0 and re.search(r"of its GPU.*votes [0-9.]+ KiB, states 0 B, network 0 B", out), (arguments, out)


def test_small_disk():
    """A disk of 1600 KiB under both tiers: what is free counts once, and what a killed run left counts as free."""
    os.mkdir("pages")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", "pages"], check=False).returncode != 0:
        print("file systems cannot be mounted here: small disks are not tried")
        return
    try:
        # auto leaves half of so little alone: 11 pages of 17 blocks fit into 800 KiB, and 4 into memory.
        for arguments in (["check"], ["run"], ["run", "--dry-run"]):
            code, out, err = call(deck(), *arguments)
            assert code == 3 and "64 KiB (65536 bytes) are missing" in err, (arguments, code, out, err)
            assert os.listdir("pages") == [] and not os.path.exists("out"), arguments
        # Two compute ranks share it: 3 pages each on hdd beside 2 on nvme and 2 in memory, of 8.
        for arguments in (["check"], ["run"], ["run", "--dry-run"]):
            code, out, err = call(deck(), *arguments, ranks=3)
            assert code == 3 and "64 KiB (65536 bytes) are missing" in err, (arguments, code, out, err)
            assert os.listdir("pages") == [] and not os.path.exists("out"), arguments
        for arguments in (["run", "--dry-run"], ["run"]):
            code, out, err = call(deck(hdd=", capacity: 1 GiB"), *arguments)
            assert code == 0 and ", capacity 1 GiB" in out, (code, out, err)
        shutil.rmtree("out")
        # Killed when its pages lie there: the next run begins with what is free without them. Both do not fit.
        subprocess.run(["mount", "-o", "remount,size=1300k", "pages"], check=True)
        endless = deck(hdd=", capacity: 1 GiB").replace("steps: 6", "steps: 100_000_000")
        with open("deck.yml", "w", encoding="utf-8") as text:
            text.write(endless)
        with subprocess.Popen([QUORATE, "run", "deck.yml"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while not process.stdout.readline().startswith("step"):
                pass
            process.send_signal(signal.SIGKILL)
        time.sleep(0.1)
        left = sum(os.stat(os.path.join(at, name)).st_blocks * 512
                   for at, _, names in os.walk("pages") for name in names)
        assert left > 600 * 1024, left
        shutil.rmtree("out")
        code, out, err = call(deck(hdd=", capacity: 1 GiB"), "run", "--dry-run")
        assert code == 0, (code, out, err)
    finally:
        subprocess.run(["umount", "pages"], check=True)


def test_run():
    code, out, err = call(deck(), "run")
    assert code == 0, (code, out, err)
    assert re.search(r"^step \d+ of 6, .* left, pages: cpu 4, nvme \d+, hdd \d+", out, re.MULTILINE), out
    assert re.search(r"^  cpu to nvme +\d+ ", out, re.MULTILINE) and "prefetch: " in out, out
    with open(os.path.join("out", "metrics.jsonl"), encoding="utf-8") as metrics:
        lines = [json.loads(line) for line in metrics]
    assert lines and all(sum(line["paging"]["pages_in"].values()) + line["paging"]["pages_leaving"] == 16
                         for line in lines), lines
    with open(os.path.join("out", "summary.json"), encoding="utf-8") as summary:
        paging = json.load(summary)["paging"]
    assert paging["updated"] == 6 * 16 and paging["page_bytes"] == 65536, paging
    assert paging["pages_in"] == {"cpu": 4, "nvme": 5, "hdd": 7}, paging
    # As a step turns round where the last one ended, what is in memory stays: 12 pages move each way, a step.
    up = sum(link["pages"] for link in paging["links"] if link["to"] == "cpu")
    assert 6 * 12 - 12 <= up <= 6 * 12 + 24, paging


def main():
    tests = [name for name in globals() if name.startswith("test_")]
    for name in sys.argv[1:] or tests:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            globals()[name]()
            os.chdir("/")
        print("ok", name, flush=True)


if __name__ == "__main__":
    main()
