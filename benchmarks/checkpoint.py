#!/usr/bin/env python3
"""Checkpoints against the limits of memory, disk and compressor, measured in the same run.

    benchmarks/checkpoint.py QUORATE DIRECTORY [--agents 1e7] [--dim 64] [--ranks 2] [--backend cpu] [--every 60]
                             [--seconds 130] [--threads N] [--restart-agents 0]

QUORATE is the executable, DIRECTORY is made on the disk to be measured and removed. One rank of --ranks does I/O. Needs
nothing but Python. Prints, with their limits:

  blocking   seconds for which a cut stops the step loop, over bytes / bandwidth of a copy (memcpy, or device to host)
  slow-down  seconds a step with one checkpoint every --every seconds, over seconds a step without
  writing    stored bytes a second from first page to seal on the first tier, over direct writes of the same bytes, or
             over the compressor's own rate where that is lower
  restart    stored bytes a second while agents are reloaded, over direct reads of the same files
"""

import argparse
import ctypes
import glob
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time

BLOCK = 8 << 20
DECK = """
run: {{seed: 1, steps: 1000000, stop: steps}}
agents: {{count: {agents}, options: 4}}
model: {{rule: neural, state_dim: {dim}, hidden: 32}}
network: {{kind: ring, degree: 4}}
io: {{ranks_per_node: 1, threads: {threads}}}
compute: {{backend: {backend}}}
output: {{directory: out, overwrite: true, series_every: 1 steps}}
"""


def main():
    options = parse()
    os.makedirs(options.directory)
    os.chdir(options.directory)
    try:
        measure(options)
    finally:
        os.chdir("/")
        shutil.rmtree(options.directory, ignore_errors=True)


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("quorate", type=os.path.abspath)
    parser.add_argument("directory", type=os.path.abspath)
    parser.add_argument("--agents", type=float, default=1e7)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--every", type=float, default=60)
    parser.add_argument("--seconds", type=float, default=130)
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    parser.add_argument("--restart-agents", type=float, default=0)
    return parser.parse_args()


def ranks_of(program):
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/exe") == os.path.realpath(program):
                yield int(entry)
        except OSError:
            continue


def run(options, agents, *settings, signal_after=None):
    """Runs the deck; with signal_after, SIGUSR1 ends it after so many seconds. Returns summary.json."""
    with open("deck.yml", "w", encoding="utf-8") as deck:
        deck.write(DECK.format(agents=int(agents), dim=options.dim, backend=options.backend, threads=options.threads))
    line = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(options.ranks), options.quorate, "run",
            "deck.yml", *settings]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
        if signal_after is not None:
            while not os.path.exists("out/series.h5") and job.poll() is None:
                time.sleep(0.01)
            time.sleep(signal_after)
            for pid in ranks_of(options.quorate):  # not every mpirun passes it on
                os.kill(pid, signal.SIGUSR1)
        output = job.stdout.read()
    if job.returncode not in (0, 75):
        sys.exit(f"{' '.join(line)} ended with {job.returncode}:\n{output}")
    with open("out/summary.json", encoding="utf-8") as file:
        return json.load(file)


def seconds_a_step(summary):
    phases = summary["phases_of_compute_rank_0_s"]
    in_loop = ("halo exchange", "update and tally", "reduce and decide", "hand over output")
    return sum(phases[name] for name in in_loop) / summary["steps"]


def best_of(n, function):
    return max(function() for _ in range(n))


def memcpy_rate(size=256 << 20):
    source = ctypes.create_string_buffer(size)
    target = ctypes.create_string_buffer(size)
    ctypes.memset(source, 1, size)
    ctypes.memset(target, 2, size)

    def once():
        start = time.perf_counter()
        ctypes.memmove(target, source, size)
        return size / (time.perf_counter() - start)

    return best_of(5, once)


def device_to_host_rate(size=256 << 20):
    """Pinned memory, one copy."""
    runtime = ctypes.CDLL(glob.glob("/usr/local/cuda*/lib64/libcudart.so*")[0])
    device = ctypes.c_void_p()
    host = ctypes.c_void_p()
    if runtime.cudaMalloc(ctypes.byref(device), ctypes.c_size_t(size)) or \
            runtime.cudaHostAlloc(ctypes.byref(host), ctypes.c_size_t(size), 0):
        sys.exit("no memory for the copy that is the limit")

    def once():
        start = time.perf_counter()
        runtime.cudaMemcpy(host, device, ctypes.c_size_t(size), 2)
        return size / (time.perf_counter() - start)

    rate = best_of(5, once)
    runtime.cudaFree(device)
    runtime.cudaFreeHost(host)
    return rate


def direct_write_rate(source):
    """The file's bytes, past the page cache, to the same disk."""
    size = os.path.getsize(source) // BLOCK * BLOCK
    buffer = mmap.mmap(-1, BLOCK)
    with open(source, "rb", buffering=0) as data:
        file = os.open("direct", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT)
        took = 0.0
        for _ in range(size // BLOCK):
            data.readinto(buffer)
            start = time.perf_counter()
            os.write(file, buffer)
            took += time.perf_counter() - start
        start = time.perf_counter()
        os.fsync(file)
        os.close(file)
        took += time.perf_counter() - start
    os.remove("direct")
    return size / took


def direct_read_rate(names):
    buffer = mmap.mmap(-1, BLOCK)
    total = 0
    start = time.perf_counter()
    for name in names:
        file = os.open(name, os.O_RDONLY | os.O_DIRECT)
        while (n := os.readv(file, [buffer])) > 0:
            total += n
        os.close(file)
    return total / (time.perf_counter() - start)


def drop_caches():
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")
        return "caches dropped"
    except OSError:
        for name in glob.glob("ck/*.h5"):
            file = os.open(name, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
        return "files dropped from the cache"


def tier_of(summary, name):
    return summary["checkpoints"]["tiers"][name]


def say(what, figure, unit, limit="", ratio=""):
    print(f"{what:<44} {figure:>12} {unit:<8} {limit:<52} {ratio}", flush=True)


def measure(options):
    tier = ["--set", "checkpoint.tiers.nvme.directory=ck"]
    copy = device_to_host_rate if options.backend == "cuda" else memcpy_rate
    copy_name = "device-to-host copy" if options.backend == "cuda" else "memcpy by one thread"
    plain = run(options, options.agents, signal_after=options.seconds / 2)
    rate = copy()
    held = run(options, options.agents, *tier, "--set", f"checkpoint.every={options.every} s",
               signal_after=options.seconds)
    told = held["checkpoints"]
    # The last cut is made after the loop; its pages are copied out all the same.
    blocked = told["blocked_s"] / told["cuts"]
    ideal = told["copied_bytes"] / told["cuts"] / rate
    say("blocking, s a checkpoint", f"{blocked:.4f}", "s", f"{ideal:.4f} s: {copy_name} at {rate * 1e-9:.2f} GB/s",
        f"{blocked / ideal:.2f}")
    slow = (seconds_a_step(held) * held["steps"] + told["blocked_s"]) / held["steps"] / seconds_a_step(plain)
    say("slow-down of the step loop", f"{100 * (slow - 1):.2f}", "%",
        f"{told['cuts']} checkpoints in {options.seconds:.0f} s; {seconds_a_step(plain) * 1e3:.2f} ms a step without")
    nvme = tier_of(held, "nvme")
    newest = sorted(glob.glob("ck/*.h5"))[-1]
    direct = best_of(2, lambda: direct_write_rate(newest))
    written = nvme["stored_bytes"] / nvme["wall_s"]
    threads = options.threads
    compressor = nvme["stored_bytes"] / (nvme["compress_s"] / threads)
    limit = min(direct, compressor)
    say("writing, stored bytes a second", f"{written * 1e-6:.0f}", "MB/s",
        f"direct {direct * 1e-6:.0f}, compressor {compressor * 1e-6:.0f} MB/s ({threads} threads, ratio "
        f"{nvme['raw_bytes'] / max(1, nvme['stored_bytes']):.2f})", f"{written / limit:.2f}")
    agents = options.restart_agents or options.agents
    if agents != options.agents:
        shutil.rmtree("ck")
        run(options, agents, *tier, "--set", "run.steps=1")
    how = drop_caches()
    again = run(options, agents, *tier, "--restart", "auto", "--set", "run.steps=1")
    files = sorted(glob.glob("ck/*.h5"))[-1:]
    size = sum(os.path.getsize(name) for name in files)
    reload_s = again["phases_of_compute_rank_0_s"]["reload checkpoint"]
    drop_caches()
    read = direct_read_rate(files)
    say(f"restart of {agents:.3g} agents", f"{size / reload_s * 1e-6:.0f}", "MB/s",
        f"direct reads {read * 1e-6:.0f} MB/s; {size * 1e-9:.2f} GB in {reload_s:.2f} s, {how}",
        f"{size / reload_s / read:.2f}")


main()
