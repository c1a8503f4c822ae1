#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the rest of the loss family costs beside the plain loss: medians and their ratios, as a table.

    ./dev bench variants [Google Benchmark's options]
    bench/variants.py BENCH RESULTS.json [OPTION...]
"""
import collections
import json
import re
import subprocess
import sys

VARIANTS = ["both", "both100", "prefixes", "sigmoid", "smoothed", "corrected"]
SHAPES = "B:4096/d:128/rounds:(all|50)|B:1024/d:(128|384)/rounds:all|B:2048/d:768/rounds:all|B:4096/d:(384|768)/rounds:20"
NAME = re.compile(r"(\w+)/gradients/B:(\d+)/d:(\d+)/rounds:(\w+)/(\w+)/f32/threads:1(?:/(\w+))?/real_time_median$")


def main(bench, results, *options):
    # The calls of one shape take turns: what disturbs one of them disturbs the others.
    subprocess.run([bench, f"--benchmark_filter=/gradients/({SHAPES})/(avx512|avx2|neon|scalar)/f32/threads:1/",
                    "--benchmark_repetitions=15", "--benchmark_min_time=0.02",
                    "--benchmark_enable_random_interleaving=true", "--benchmark_report_aggregates_only=true",
                    f"--benchmark_out={results}", *options], check=True, stdout=subprocess.DEVNULL)
    with open(results, encoding="utf-8") as file:
        lines = json.load(file)["benchmarks"]
    for line in lines:
        if "error_occurred" in line:
            sys.exit(f"{line['name']}: {line['error_message']}")
    times = collections.defaultdict(dict)
    for line in lines:
        if match := NAME.match(line["name"]):
            engine, batch, dim, rounds, isa, variant = match.groups()
            times[engine, int(batch), int(dim), rounds, isa][variant or "plain"] = line["real_time"] / 1e3
    print("| engine | B | d | rounds | plain, ms | " + " | ".join(VARIANTS) + " |")
    print("|---|---|---|---|---|" + "---|" * len(VARIANTS))
    for (engine, batch, dim, rounds, isa), row in times.items():
        if len(row) > 1:
            ratios = [f"{row[v] / row['plain']:.2f} ×" if v in row else "" for v in VARIANTS]
            print(f"| {engine} ({isa}) | {batch} | {dim} | {rounds} | {row['plain']:.1f} | " + " | ".join(ratios) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
