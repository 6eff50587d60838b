#!/usr/bin/env python3
"""Trains recipes with exact and with stock numerics from several seeds, and compares test accuracy.

python3 experiments/accuracy.py --pol target/debug/pol --csv out.csv --data-dir DIR
"""
import argparse
import csv
import json
import pathlib
import statistics
import subprocess
import tempfile


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--pol", required=True, help="the program")
    p.add_argument("--data-dir", help="where the data sets are")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--recipes", nargs="+", default=["digits-lenet", "digits-mlp", "cifar10-resnet20:1"],
                   help="a shipped recipe, with :EPOCHS for fewer than it has")
    p.add_argument("--csv", required=True)
    a = p.parse_args()

    rows = []
    for name in a.recipes:
        recipe, _, epochs = name.partition(":")
        for numerics in ("exact", "stock"):
            for seed in range(a.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    command = [a.pol, "train", "--recipe", recipe, "--numerics", numerics, "--seed", str(seed),
                               "--out", str(pathlib.Path(folder) / "run"), "--test-records", "0", "--json"]
                    command += ["--epochs", epochs] if epochs else []
                    command += ["--data-dir", a.data_dir] if a.data_dir else []
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                result = json.loads(done.stdout)
                rows.append([recipe, result["steps"], numerics, seed, result["test_accuracy"]])
                print(*rows[-1], flush=True)
    with open(a.csv, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["recipe", "steps", "numerics", "seed", "test_accuracy"])
        writer.writerows(rows)
    for recipe in dict.fromkeys(row[0] for row in rows):
        for numerics in ("exact", "stock"):
            found = [row[4] for row in rows if row[0] == recipe and row[2] == numerics]
            print(f"{recipe} {numerics}: {statistics.mean(found):.4f} ± {statistics.stdev(found):.4f}")


if __name__ == "__main__":
    main()
