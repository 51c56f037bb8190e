"""Agents whose states do not fit into memory end with the state hash that they have where all fit.

Budgets of 100, 50 and 10 per cent and of one page a tier, pages of 64 KiB to 16 MiB, full and sparse activation, prefetch
on and off, 1 to 3 compute ranks, with and without I/O ranks; rules without states take the same keys and nothing changes.
Some of it with a checkpoint, kill -9 and a restart in between, elsewhere with another budget. QUORATE_PAGING_CASES: how
many drawn cases come on top of those that are always tried (default 8).
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "support"))
from side_by_side import COMPUTING, side_by_side  # noqa: E402

QUORATE = os.environ["QUORATE"]
CASES = int(os.environ.get("QUORATE_PAGING_CASES", "8"))
PATIENCE_S = 150
KIB = 1024

MODELS = {
    # states of 64 bytes, 1 MiB in all
    "neural": ("agents: {count: 16384, options: 3}\nmodel: {rule: neural, state_dim: 16, hidden: 8}\n"
               "network: {kind: small_world, degree: 4, rewire: 0.1}\n", 12),
    # states of 4 KiB, 24 MiB in all: for large pages
    "large": ("agents: {count: 6144, options: 2}\nmodel: {rule: neural, state_dim: 1024, hidden: 2}\n"
              "network: {kind: ring, degree: 4}\n", 4),
    "voter": ("agents: {count: 16384, options: 3}\nmodel: {rule: voter}\nnetwork: {kind: ring, degree: 4}\n", 12),
    "majority": ("agents: {count: 16384, options: 2}\nmodel: {rule: majority}\n"
                 "network: {kind: lattice2d, size: [128, 128]}\n", 12),
}
STATE_BYTES = {"neural": 16384 * 64, "large": 6144 * 4096, "voter": 16384, "majority": 16384}


def deck(model, activation, tiers="", every=""):
    text, steps = MODELS[model]
    return (f"run: {{seed: 11, steps: {steps}, stop: steps, activation: {activation}}}\n{text}"
            f"compute: {{backend: cpu, threads: 1}}\n{tiers}{every}output: {{directory: out}}\n")


def tiers_of(page_kib, cpu, nvme=None, ssd=None, hdd=None, prefetch="{}"):
    """Capacities in bytes of a node; 0: as much as there is; None: not used."""
    lines = [f"    cpu: {{capacity: {cpu} B}}"]
    for name, capacity in (("nvme", nvme), ("ssd", ssd), ("hdd", hdd)):
        if capacity is not None:
            room = "auto" if capacity == 0 else f"{capacity} B"
            lines.append(f"    {name}: {{directory: scratch/{name}, capacity: {room}}}")
    return f"memory:\n  page: {page_kib} KiB\n  prefetch: {prefetch}\n  tiers:\n" + "\n".join(lines) + "\n"


def command(ranks, io_ranks, more=()):
    line = [QUORATE, "run", "deck.yml", "--set", f"io.ranks_per_node={io_ranks}", *more]
    n = ranks + io_ranks
    return line if n == 1 else ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(n), *line]


def wait(job, seconds):
    """Awake seconds. None: it is still there."""
    for _ in range(int(seconds / 0.02)):
        if job.poll() is not None:
            return job.returncode
        time.sleep(0.02)
    return None


def start(folder, line, fault=""):
    log = open(os.path.join(folder, "log"), "w", encoding="utf-8")
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    environment.pop("QUORATE_FAULT", None)
    if fault:
        environment["QUORATE_FAULT"] = fault
    return subprocess.Popen(line, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
                            start_new_session=True)


def finish(folder, job):
    code = wait(job, PATIENCE_S)
    if code is None:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    with open(os.path.join(folder, "log"), encoding="utf-8", errors="replace") as log:
        return code, log.read()


def run(folder, text, ranks=1, io_ranks=0, more=(), fault=""):
    with open(os.path.join(folder, "deck.yml"), "w", encoding="utf-8") as out:
        out.write(text)
    return finish(folder, start(folder, command(ranks, io_ranks, more), fault))


def answer(output):
    return re.findall(r"^(?:decision|state hash): .*$", output, re.MULTILINE)


def paging_of(folder):
    with open(os.path.join(folder, "out", "summary.json"), encoding="utf-8") as summary:
        return json.load(summary).get("paging")


def check_paged(folder, case, output):
    """What the summary says of tiers: all pages are somewhere, no tier holds more than it may, and pages moved."""
    paging = paging_of(folder)
    if MODELS[case["model"]][0].find("neural") < 0 or case["fits"]:
        assert paging is None, (case, paging)
        return
    assert paging is not None and sum(paging["pages_in"].values()) == paging["pages"], (case, paging, output)
    assert paging["pages_in"]["cpu"] * paging["page_bytes"] <= case["cpu"], (case, paging)
    assert paging["passed"] > 0 or case["activation"] > 0.01, (case, paging)
    if case["prefetch"] == "{sequential: false, correlation: false}":
        assert paging["prefetch_hits"] == paging["prefetch_late"] == paging["prefetch_wasted"] == 0, (case, paging)
    elif case["activation"] == 1:
        assert paging["prefetch_hits"] + paging["prefetch_late"] > 0, (case, paging)
    assert any(link["pages"] > 0 for link in paging["links"]), (case, paging)


def try_case(case, expected):
    text = deck(case["model"], case["activation"],
                tiers_of(case["page"], case["cpu"], *case["disks"], prefetch=case["prefetch"]))
    with tempfile.TemporaryDirectory() as folder:
        code, output = run(folder, text, case["ranks"], case["io"])
        assert code == 0, (case, code, output)
        assert answer(output) == expected[case["model"], case["activation"]], (case, output)
        check_paged(folder, case, output)
        left = [name for _, _, names in os.walk(os.path.join(folder, "scratch")) for name in names]
        assert not left, (case, left)
    return 1


def victims(job):
    """The ranks of a job: what runs the program among all processes of its session."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii") as stat:
                session = int(stat.read().rsplit(")", 1)[1].split()[3])
            if session == job.pid and os.readlink(f"/proc/{entry}/exe") == os.path.realpath(QUORATE):
                found.append(int(entry))
        except (OSError, ValueError, IndexError):
            continue
    return found


def kill_in_between(case):
    """A checkpoint, kill -9 of a rank, and on with another budget, page and number of ranks."""
    draw = random.Random(case["draw"])
    every = "checkpoint: {every: 2 steps, tiers: {nvme: {directory: kept}}}\n"
    first = deck("neural", 1, tiers_of(64, 256 * KIB, 400 * KIB, 0), every)
    again = deck("neural", 1, tiers_of(case["page"], case["cpu"], *case["disks"]), every)
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "deck.yml"), "w", encoding="utf-8") as out:
            out.write(first)
        job = start(folder, command(case["ranks"], case["io"], ["--set", "run.steps=100000"]))
        for _ in range(int(PATIENCE_S / 0.02)):
            kept = os.path.join(folder, "kept")
            if job.poll() is not None or (os.path.isdir(kept) and
                                          any(name.endswith(".manifest") for name in os.listdir(kept))):
                break
            time.sleep(0.02)
        time.sleep(draw.random() * 0.1)
        ranks = victims(job)
        assert ranks, (case, finish(folder, job))
        os.kill(draw.choice(ranks), signal.SIGKILL)
        code, output = finish(folder, job)
        assert code not in (0, None), (case, code, output)
        listed = subprocess.run([QUORATE, "info", "kept"], cwd=folder, capture_output=True, text=True, check=False).stdout
        goes_to = str(max(int(step) for step in re.findall(r": step (\d+),", listed)) + 6)
        code, output = run(folder, again, case["ranks"] % 3 + 1, 1 - case["io"],
                           ["--restart", "auto", "--set", f"run.steps={goes_to}"])
        assert code == 0 and "restart: checkpoint" in output, (case, code, output)
        stores = [name for _, _, names in os.walk(os.path.join(folder, "scratch")) for name in names]
        assert not stores, (case, stores)
    with tempfile.TemporaryDirectory() as folder:
        code, undisturbed = run(folder, deck("neural", 1), more=["--set", f"run.steps={goes_to}"])
        assert code == 0 and answer(output) == answer(undisturbed), (case, output, undisturbed)
    return 1


def no_room_to_spare(expected):
    """A checkpoint of every step keeps pages as they were while they change, on a disk that has room for each once."""
    page = 64 * KIB
    text = deck("neural", 1, tiers_of(64, 2 * page, 14 * (page + 4 * KIB)),
                "checkpoint: {every: 1 steps, tiers: {ssd: {directory: kept}}}\n")
    with tempfile.TemporaryDirectory() as folder:
        code, output = run(folder, text, fault=",".join(f"pages.read:slow@{n}" for n in range(9, 130, 8)))
        assert code == 0 and answer(output) == expected["neural", 1], (code, output)
        with open(os.path.join(folder, "out", "summary.json"), encoding="utf-8") as summary:
            tier = json.load(summary)["checkpoints"]["tiers"]["ssd"]
        assert tier["committed"] > 1 and tier["failed"] == 0, (tier, output)
        code, output = run(folder, text.replace(str(14 * (page + 4 * KIB)), str(13 * (page + 4 * KIB))),
                           more=["--set", "output.overwrite=true"])
        assert code == 2 and "take 1 MiB (1048576 bytes" in output and "(983040 bytes) of" in output, (code, output)
    return 1


def ranks_without_agents():
    """64 agents are one word of votes, so all are with one rank; the others have nothing to put on any tier."""
    text = ("run: {seed: 1, steps: 3, stop: steps}\nagents: {count: 64, options: 2}\nnetwork: {kind: complete}\n"
            "model: {rule: neural, state_dim: 16, hidden: 8}\ncompute: {backend: cpu, threads: 1}\noutput: {directory: out}\n")
    tiers = "memory: {tiers: {nvme: {directory: scratch/nvme}, hdd: {directory: scratch/hdd, capacity: 1 MiB}}}\n"
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        code, output = run(one, text)
        assert code == 0, output
        expected = answer(output)
        code, output = run(other, text + tiers, ranks=3, io_ranks=1)
        assert code == 0 and answer(output) == expected, (code, output)
    return 1


def fixed_cases():
    whole = STATE_BYTES["neural"]
    page = 64 * KIB
    plain = {"model": "neural", "activation": 1, "page": 64, "prefetch": "{}", "ranks": 1, "io": 0, "fits": False}
    one_page = (page + 8 * KIB, page + 8 * KIB, 0)
    cases = [
        {**plain, "cpu": whole, "disks": (0, None, None), "fits": True},
        {**plain, "cpu": whole // 2, "disks": (0, None, None), "ranks": 2, "io": 1},
        {**plain, "cpu": whole // 10, "disks": (whole // 4, 0, None), "activation": 0.001},
        {**plain, "cpu": page, "disks": one_page},
        {**plain, "cpu": 3 * page, "disks": tuple(3 * room for room in one_page), "ranks": 3, "io": 1},
        {**plain, "cpu": whole // 4, "disks": (0, None, None), "prefetch": "{sequential: false, correlation: false}"},
        {**plain, "cpu": whole // 10, "disks": (None, None, 0), "activation": 0.5, "io": 1},
        {**plain, "model": "large", "page": 1024, "cpu": 5 * KIB * KIB, "disks": (10 * KIB * KIB, 0, None)},
        {**plain, "model": "large", "page": 16384, "cpu": 16 * KIB * KIB, "disks": (0, None, None)},
    ]
    for model in ("voter", "majority"):
        cases.append({**plain, "model": model, "cpu": page, "disks": one_page})
    return cases


def drawn_case(draw):
    model = draw.choice(["neural"] * 6 + ["large", "voter"])
    page = draw.choice([64, 128, 256] if model != "large" else [1024, 4096, 16384])
    ranks = draw.choice([1, 1, 2, 3])
    whole = STATE_BYTES[model]
    budget = draw.choice([0.5, 0.25, 0.1, 0.0])
    own = (whole // ranks // (page * KIB) + 1) * page * KIB
    cpu = ranks * max(page * KIB, int(own * budget) // (page * KIB) * page * KIB)
    room = ranks * (page * KIB + 8 * KIB)
    disks = [draw.choice([None, room, 2 * room, 0]) for _ in range(3)]
    disks[draw.choice([0, 1, 2])] = 0
    prefetch = draw.choice(["{}", "{sequential: false}", "{correlation: false}", "{ahead: 1}", "{ahead: 500}",
                            "{sequential: false, correlation: false}"])
    return {"model": model, "activation": draw.choice([1, 1, 0.5, 0.001]), "page": page, "cpu": cpu,
            "disks": tuple(disks), "prefetch": prefetch, "ranks": ranks, "io": draw.choice([0, 1]),
            "fits": cpu >= ranks * -(-(whole // ranks) // (page * KIB)) * page * KIB}


def resident(model, activation):
    with tempfile.TemporaryDirectory() as folder:
        code, output = run(folder, deck(model, activation))
        assert code == 0, output
        return answer(output)


def main():
    draw = random.Random(2718)
    cases = fixed_cases() + [drawn_case(draw) for _ in range(CASES)]
    wanted = sorted({(case["model"], case["activation"]) for case in cases})
    expected = dict(zip(wanted, side_by_side([lambda w=w: resident(*w) for w in wanted], COMPUTING)))
    tasks = [lambda case=case: try_case(case, expected) for case in cases]
    tasks += [lambda i=i: kill_in_between({"draw": i, "ranks": i % 3 + 1, "io": i % 2, "page": (64, 128, 32)[i % 3],
                                           "cpu": 384 * KIB, "disks": (408 * KIB, 0, None)}) for i in range(3)]
    tasks.append(lambda: no_room_to_spare(expected))
    tasks.append(ranks_without_agents)
    print(f"{sum(side_by_side(tasks, COMPUTING))} runs in pages end as those in memory")


if __name__ == "__main__":
    main()
