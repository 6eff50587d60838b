#!/usr/bin/env python3
"""Makes many short honest runs and verifies each under the default policy: none may be rejected.

python3 experiments/false_rejections.py --pol target/debug/pol --runs 200 --csv out.csv
"""
import argparse
import collections
import csv
import itertools
import json
import pathlib
import signal
import subprocess
import tempfile
import time

# Every honest run is one of these: what trains, what verifies, how.
KINDS = [
    # numerics, trained on, verified on, resumed, verified with so many threads
    ("stock", "flex", "flex", False, None),
    ("stock", "flex", "flex", False, 1),
    ("stock", "flex", "flex", True, None),
    ("stock", "flex", "wgpu", False, None),
    ("stock", "wgpu", "flex", False, None),
    ("stock", "wgpu", "wgpu", False, None),
    ("exact", "flex", "flex", False, 1),
    ("exact", "flex", "flex", True, None),
    ("exact", "flex", "wgpu", False, None),
    ("exact", "wgpu", "flex", False, None),
]
MODELS = [("digits-lenet", 32), ("digits-mlp", 16)]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--pol", required=True, help="the program")
    p.add_argument("--runs", type=int, default=200)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--interval", type=int, default=5)
    p.add_argument("--csv", required=True)
    a = p.parse_args()

    rows = []
    kinds = itertools.cycle(itertools.product(MODELS, KINDS))
    for run, ((recipe, batch), kind) in zip(range(a.runs), kinds):
        numerics, trained_on, verified_on, resumed, threads = kind
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "run"
            train = [a.pol, "train", "--out", str(out), "--backend", trained_on, "--json"]
            begin = ["--recipe", recipe, "--steps", str(a.steps), "--interval", str(a.interval),
                     "--batch-size", str(batch), "--seed", str(run), "--numerics", numerics]
            if resumed:
                interrupt(train + begin, out / "journal.mp")
                begin = ["--resume"] if (out / "journal.mp").exists() else None
            if begin is not None:
                call(train + begin)
            verify = [a.pol, "verify", str(out), "--backend", verified_on, "--json"]
            verdict = json.loads(call(verify + (["--threads", str(threads)] if threads else []), any_code=True))
            epsilon = [s["relative_to_movement"] or 0 for s in verdict["segments"]]
            noise = [s["noise"] for s in verdict["segments"] if s["noise"]]
            # How much of what is tolerated was used, by the worst segment.
            used = max((s["l2"] / s["noise"]["tolerance_l2"] for s in verdict["segments"] if s["noise"]), default=0)
            rows.append([run, recipe, numerics, trained_on, verified_on, resumed, threads or "all",
                         verdict["verdict"], max(epsilon, default=0),
                         min((n["rho"] for n in noise), default=""), used, "; ".join(verdict["reasons"])])
            print(*rows[-1], flush=True)
    with open(a.csv, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "recipe", "numerics", "trained_on", "verified_on", "resumed", "threads",
                         "verdict", "largest_epsilon_of_movement", "smallest_rho", "tolerance_used", "reasons"])
        writer.writerows(rows)
    count = collections.Counter((r[2], r[3], r[4], r[5], r[7]) for r in rows)
    for key, number in sorted(count.items()):
        print(*key, number)


def call(command, any_code=False):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and not (any_code and done.returncode in (1, 3)):
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    return done.stdout


def interrupt(command, journal):
    """Kills the training as soon as it has written a checkpoint."""
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while training.poll() is None:
        if journal.exists() and journal.stat().st_size > 900:
            training.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    training.wait()


if __name__ == "__main__":
    main()
