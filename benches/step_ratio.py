#!/usr/bin/env python3
"""Times training steps, ours and a peer's, interleaved, and prints medians and ratios."""
import argparse
import csv
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
POL = pathlib.Path(os.environ.get("POL", TARGET / "debug/pol"))
MIB = 1 << 20


def run(command):
    """What `command` prints."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr}")
    return done.stdout.strip()


def ours(command):
    """What `pol bench` measured."""
    found = json.loads(run(command))["runs"][0]
    if found["problem"]:
        sys.exit(f"{shlex.join(command)} failed: {found['problem']}")
    return {**found, "peak_rss_mib": (found["peak_rss_bytes"] or 0) / MIB}


def theirs(command):
    """The JSON object that the PyTorch program prints last."""
    return json.loads(run(command).splitlines()[-1])


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--peer", help="the command of the PyTorch program")
    p.add_argument("--model", default="resnet20", choices=("resnet20", "resnet18", "lenet", "mlp"))
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--numerics", nargs="+", default=["exact", "exact/fma-v2", "stock"])
    p.add_argument("--csv", help="where to write every run")
    a = p.parse_args()
    if not POL.exists():
        sys.exit(f"{POL} is missing: cargo build -p pol-cli, or name the program by POL")

    rows = []
    for threads in a.threads:
        common = ["--model", a.model, "--batch", str(a.batch), "--threads", str(threads)]
        model = "lenet5" if a.model == "lenet" else a.model
        bench = [str(POL), "bench", "--model", model, "--batch-size", str(a.batch), "--threads", str(threads),
                 "--steps", str(a.steps), "--warmup", "2", "--json"]
        contenders = {}
        if a.peer:
            # The first, to which ratios are taken.
            peer = shlex.split(a.peer) + common + ["--layout", "nhwc", "--steps", str(a.steps)]
            contenders["PyTorch"] = (theirs, peer)
        for numerics in a.numerics:
            contenders[numerics] = (ours, [*bench, "--numerics", numerics])
        measured = {name: [] for name in contenders}
        for _ in range(a.rounds):
            for name, (measure, command) in contenders.items():
                measured[name].append(measure(command))
        key, unit = "median_step_cpu_s", "CPU s"
        if threads > 1:
            key, unit = "median_step_s", "wall s"
        base = None
        print(f"\n{a.model}, batch {a.batch}, {threads} thread(s), {unit} a step, median of {a.rounds}")
        for name, results in measured.items():
            median = statistics.median(result[key] for result in results)
            base = base or median
            rss = statistics.median(result["peak_rss_mib"] for result in results)
            print(f"  {name:18} {median:8.4f}  ratio {median / base:5.2f}  peak {rss:6.0f} MiB")
            for number, result in enumerate(results):
                rows.append([a.model, a.batch, threads, name, number, key, result[key], result["peak_rss_mib"]])
    if a.csv:
        with open(a.csv, "w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(["model", "batch", "threads", "program", "round", "measure", "seconds", "peak_rss_mib"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
