"""What a user is told: the plan before a run, what is refused, what is under way and what came of it."""

import json
import os
import re
import subprocess
import tempfile

QUORATE = os.environ["QUORATE"]

DECK = """
run: {seed: 1, steps: 6, stop: steps, progress_every: 1 ms}
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


def call(folder, deck, *arguments):
    with open(os.path.join(folder, "deck.yml"), "w", encoding="utf-8") as out:
        out.write(deck)
    done = subprocess.run([QUORATE, arguments[0], "deck.yml", *arguments[1:]], cwd=folder, capture_output=True, text=True,
                          timeout=600, check=False)
    return done.returncode, done.stdout, done.stderr


def main():
    with tempfile.TemporaryDirectory() as folder:
        # 16 pages of 64 KiB: 4 in memory, 340 KiB hold 5 with a block for each head, the rest on the last disk.
        plan = ["16 pages of 64 KiB", "cpu   holds 4 pages, 256 KiB", r"nvme  holds 5 pages, 320 KiB; a step moves 5 pages",
                r"hdd   holds 7 pages, 448 KiB; a step moves 7 pages", r"takes about [0-9.]+ times as long"]
        for arguments in (["check"], ["run", "--dry-run"]):
            code, out, err = call(folder, DECK % (NEURAL, ""), *arguments)
            assert code == 0 and all(re.search(words, out) for words in plan), (arguments, code, out, err)
        code, out, _ = call(folder, DECK % (NEURAL, ""), "check", "--set", "memory.tiers.cpu.capacity=1 MiB")
        assert code == 0 and "nothing is paged" in out, out
        code, out, _ = call(folder, DECK % ("voter", ""), "check")
        assert code == 0 and "never paged" in out, out
        for arguments in (["run"], ["run", "--dry-run"]):
            code, out, err = call(folder, DECK % (NEURAL, ", capacity: 400 KiB"), *arguments)
            words = "take 1048576 bytes (16 pages), and memory.tiers hold 917504 of"
            assert code == 2 and words in err and "memory.tiers.hdd.capacity" in err, (arguments, code, out, err)
        code, out, err = call(folder, DECK % (NEURAL, ", capacity: 64 KiB"), "run")
        assert code == 2 and "memory.tiers.hdd.capacity: does not hold one page of 65536 bytes" in err, (code, err)
        assert os.listdir(folder) == ["deck.yml"], os.listdir(folder)

        code, out, err = call(folder, DECK % (NEURAL, ""), "run")
        assert code == 0 and all(re.search(words, out) for words in plan), (code, out, err)
        assert re.search(r"^step \d+ of 6, .* left, pages: cpu 4, nvme \d+, hdd \d+", out, re.MULTILINE), out
        assert re.search(r"^  cpu to nvme +\d+ ", out, re.MULTILINE) and "prefetch: " in out, out
        with open(os.path.join(folder, "out", "metrics.jsonl"), encoding="utf-8") as metrics:
            lines = [json.loads(line) for line in metrics]
        assert lines and all(sum(line["paging"]["pages_in"].values()) + line["paging"]["pages_leaving"] == 16
                             for line in lines), lines
        with open(os.path.join(folder, "out", "summary.json"), encoding="utf-8") as summary:
            paging = json.load(summary)["paging"]
        assert paging["updated"] == 6 * 16 and paging["page_bytes"] == 65536, paging
        assert paging["pages_in"] == {"cpu": 4, "nvme": 5, "hdd": 7}, paging
        # As a step turns round where the last one ended, what is in memory stays: 12 pages move each way, a step.
        up = sum(link["pages"] for link in paging["links"] if link["to"] == "cpu")
        assert 6 * 12 - 12 <= up <= 6 * 12 + 24, paging
    print("plans, refusals and reports are as they should be")


if __name__ == "__main__":
    main()
