#!/usr/bin/env python3
"""Prints the table of docs/performance.md: every figure as a ratio to a baseline of the same run.

    cargo build --workspace --examples && python3 benches/table.py [--quick] [--only NAME …] [--csv FILE]

Timing gates nothing. Runs are interleaved with their baselines and medians are taken.
"""
import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
POL, EXAMPLES = TARGET / "pol", TARGET / "examples"
rows = []


def run(*command):
    """The JSON object that a program prints."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def row(section, what, figure, unit, raw):
    rows.append({"section": section, "what": what, "figure": figure, "unit": unit, "raw": json.dumps(raw)})
    print(f"  {what:58} {figure:9.4g} {unit}", flush=True)


def heading(text):
    print(f"\n{text}", flush=True)


def recording(quick):
    """Training with recording over training without, two threads."""
    heading("Recording: time with it over time without")
    # Interval, states kept of checkpoints, pairs of blocks.
    plan = {("lenet", "exact"): [(1, 1, 10), (10, 1, 4)]}
    if not quick:
        plan = {
            ("lenet", "exact"): [(1, 1, 60), (10, 1, 20), (100, 1, 3), (1, 100, 60)],
            ("lenet", "stock"): [(1, 1, 40), (10, 1, 10), (100, 1, 2)],
            ("resnet20", "exact"): [(1, 1, 25), (10, 1, 8), (100, 1, 1), (1, 100, 15)],
            ("resnet20", "stock"): [(1, 1, 8), (10, 1, 2)],
        }
    for (model, numerics), cases in plan.items():
        for interval, keep, pairs in cases:
            found = run(EXAMPLES / "recording", "--model", model, "--numerics", numerics, "--threads", 2,
                        "--interval", interval, "--keep", keep, "--pairs", pairs)
            kept = "" if keep == 1 else f", one state in {keep} kept"
            what = f"{model}, {numerics}, k = {interval}{kept}"
            row("recording", f"{what}: what it computes itself", found["own_cpu_ratio"], "× CPU", found)
            row("recording", f"{what}: all, in pairs", found["wall_ratio"], "× wall", found)


def size(quick):
    """The last tenth of a training's states, stored, over their raw bytes."""
    heading("Size: the last tenth of the stored states over their raw values")
    plan = [("digits-lenet", ["--numerics", "stock"], (1, 10))]
    if not quick:
        plan += [("digits-lenet", ["--numerics", "exact"], (1, 10, 100))]
    with tempfile.TemporaryDirectory() as folder:
        for recipe, more, intervals in plan:
            for interval in intervals:
                out = pathlib.Path(folder) / f"{recipe}-{len(more)}-{interval}"
                run(POL, "train", "--recipe", recipe, *more, "--interval", interval, "--test-records", 1,
                    "--out", out, "--json")
                checkpoints = run(POL, "inspect", out, "--json")["checkpoints"]
                # A state is the model, as much again of velocity, and the schedule.
                model = (out / "model.safetensors").stat().st_size
                header = 8 + int.from_bytes((out / "model.safetensors").read_bytes()[:8], "little")
                state = 2 * (model - header) + 16
                last = checkpoints[-max(len(checkpoints) // 10, 1):]
                stored = [(out / "objects" / c["state"][:2] / c["state"][2:]).stat().st_size for c in last]
                ratio = sum(stored) / (len(stored) * state)
                name = f"{recipe} {' '.join(more)}".strip()
                row("size", f"{name}, k = {interval}", ratio, "of raw", {"stored": stored, "state": state})


def verification(quick):
    """All segments replayed, over the training that was recorded, on the same threads."""
    heading("Verification of all segments, over the training")
    plan = [("lenet5", "exact", 200, (10,)), ("lenet5", "stock", 200, (10,))]
    if not quick:
        plan = [(model, numerics, steps, (1, 10, 100)) for model, numerics, steps in (
            ("lenet5", "exact", 1000), ("lenet5", "stock", 500), ("resnet20", "exact", 100),
            ("resnet20", "stock", 40))]
    with tempfile.TemporaryDirectory() as folder:
        for model, numerics, steps, intervals in plan:
            for interval in intervals:
                if interval > steps:
                    continue
                ratios, raw = [], []
                for repeat in range(1 if quick else 3):
                    out = pathlib.Path(folder) / f"{model}-{numerics}-{interval}-{repeat}"
                    trained = run(POL, "train", "--model", model, "--numerics", numerics, "--steps", steps,
                                  "--interval", interval, "--test-records", 1, "--out", out, "--json")
                    verified = run(POL, "verify", out, "--all", "--json")
                    assert verified["verdict"] == "accepted"
                    ratios.append(verified["verify_seconds"] / trained["train_seconds"])
                    raw.append([trained["train_seconds"], verified["verify_seconds"]])
                row("verification", f"{model}, {numerics}, k = {interval}", statistics.median(ratios), "×", raw)


def startup(quick):
    """Seconds from the call to the end, where there is hardly anything to do."""
    heading("Start-up: seconds of wall time")
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "run"
        run(POL, "train", "--recipe", "digits-mlp", "--steps", 1, "--test-records", 1, "--out", out, "--json")
        for what, command in (("pol --version", ["--version"]), ("pol inspect, one step", ["inspect", out]),
                              ("pol verify, one step", ["verify", out])):
            seconds = []
            for _ in range(3 if quick else 15):
                started = time.perf_counter()
                subprocess.run([POL, *command], capture_output=True, check=True)
                seconds.append(time.perf_counter() - started)
            row("startup", what, statistics.median(seconds), "s", seconds)


def scaling(quick):
    """Synthetic states of a kilobyte, in memory's file system where there is one."""
    heading("Scaling: seconds and memory for so many checkpoints")
    place = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    for checkpoints in (1000, 10_000) if quick else (1000, 10_000, 100_000):
        found = run(EXAMPLES / "scaling", "--checkpoints", checkpoints, "--in", place)
        for what, key, scale, unit in (
                ("recording", "record_s", 1e6 / checkpoints, "µs a checkpoint"),
                ("checking", "check_s", 1e6 / checkpoints, "µs a checkpoint"),
                ("peak memory of recording", "record_peak_mib", 1, "MiB"),
                ("peak memory of checking", "check_peak_mib", 1, "MiB")):
            row("scaling", f"{checkpoints} checkpoints: {what}", found[key] * scale, unit, found)


def integrity(quick):
    """A proof of a gigabyte of states as large as ResNet-20's."""
    heading("Integrity: time over that of SHA3-256 for the raw values, on all threads")
    for _ in range(1 if quick else 3):
        found = run(EXAMPLES / "scaling", "--checkpoints", 48 if quick else 480, "--elements", 520_000)
        what = f"{found['raw_bytes'] / 1e9:.2f} GB in {found['checkpoints']:.0f} states"
        row("integrity", what, found["check_s"] / found["sha3_s"], "× SHA3", found)


def in_flight(quick):
    """Memory of the recorder, in states."""
    heading("Memory of recording large states, in states")
    found = run(EXAMPLES / "scaling", "--checkpoints", 12, "--elements", 1_000_000 if quick else 16_000_000)
    states = found["record_peak_mib"] * 2**20 / found["state_bytes"]
    row("in flight", f"states of {found['state_bytes'] / 1e6:.0f} MB", states, "states", found)


SECTIONS = {"recording": recording, "size": size, "verification": verification, "startup": startup,
            "scaling": scaling, "integrity": integrity, "in-flight": in_flight}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="a few minutes instead of an hour")
    p.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    p.add_argument("--csv", help="where to write every figure, with what it was made of")
    a = p.parse_args()
    for needed in (POL, EXAMPLES / "recording", EXAMPLES / "scaling"):
        if not needed.exists():
            sys.exit(f"{needed} is missing: cargo build --workspace --examples -p pol-cli")
    for name in a.only:
        SECTIONS[name](a.quick)
    if a.csv:
        with open(a.csv, "w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, ["section", "what", "figure", "unit", "raw"])
            writer.writeheader()
            writer.writerows(rows)


main()
