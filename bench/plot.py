#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws the figures of docs/performance.md from the benchmarks' results.

    ./dev bench --figures && ./dev bench peers --json build/peers.json && ./dev plot
    bench/plot.py BENCH.json PEERS.json FOLDER
"""
import json
import pathlib
import re
import statistics
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

NAME = re.compile(r"(gather|tiles)/(\w+)/B:(\d+)/d:(\d+)/rounds:(\w+)/(\w+)/(\w+)/threads:(\d+)(?:/real_time)?$")


def rows(path):
    """One dict per timed line; the later of two lines with one name wins."""
    result = {}
    for line in json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["benchmarks"]:
        match = NAME.match(line["name"])
        if match and "error_occurred" not in line:
            engine, part, batch, dim, rounds, isa, dtype, threads = match.groups()
            result[match.group(0)] = dict(
                engine=engine, part=part, batch=int(batch), dim=int(dim), rounds=None if rounds == "all" else int(rounds),
                isa=isa, dtype=dtype, threads=int(threads), ms=line["real_time"] / 1e3, of_limit=line.get("of_limit"))
    return list(result.values())


def select(data, **wanted):
    return [r for r in data if r["part"] == "gradients" and r["dtype"] == "f32" and
            all(r[key] == value for key, value in wanted.items())]


def curve(axes, lines, x, y, label):
    lines = sorted(lines, key=lambda r: r[x])
    axes.plot([r[x] for r in lines], [r[y] for r in lines], "o-", markersize=4, label=label)


def figure(title, xlabel, ylabel, **scales):
    fig, axes = plt.subplots(figsize=(6.4, 4))
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if scales.get("x", True):
        axes.set_xscale("log", base=2)
    if scales.get("y", True):
        axes.set_yscale("log")
    axes.grid(True, color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    return fig, axes


def save(fig, axes, folder, name):
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    fig.tight_layout()
    # no date and no random names: the same data draw the same file
    fig.savefig(folder / f"{name}.svg", metadata={"Date": None})
    plt.close(fig)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    data, folder = rows(sys.argv[1]), pathlib.Path(sys.argv[3])
    peers = json.loads(pathlib.Path(sys.argv[2]).read_text(encoding="utf-8"))
    plt.rcParams.update({"svg.hashsalt": "negcos", "svg.fonttype": "none"})
    most = max(r["threads"] for r in data)
    best = next(r["isa"] for r in data)

    fig, axes = figure(f"Loss and gradients, d 128, f32, {most} threads", "batch", "ms per call")
    curve(axes, select(data, engine="gather", dim=128, rounds=20, threads=most), "batch", "ms", "20 rounds")
    curve(axes, select(data, engine="tiles", dim=128, threads=most), "batch", "ms", "all documents")
    save(fig, axes, folder, "time-batch")

    fig, axes = figure(f"Loss and gradients, B 4096, d 128, f32, {most} threads", "rounds", "ms per call")
    curve(axes, select(data, engine="gather", batch=4096, dim=128, threads=most), "rounds", "ms", "sampled (1000: as tiles)")
    tiles = select(data, engine="tiles", batch=4096, dim=128, threads=most)
    axes.axhline(tiles[0]["ms"], color="C1", linestyle="--", label="all 4,096 documents, tiles")
    save(fig, axes, folder, "time-rounds")

    fig, axes = figure(f"Share of the gather limit, 20 rounds, f32, {most} threads", "dim", "limit / time", y=False)
    for batch in sorted({r["batch"] for r in select(data, engine="gather", rounds=20, threads=most)}):
        lines = select(data, engine="gather", rounds=20, threads=most, batch=batch)
        if len(lines) > 2:
            curve(axes, lines, "dim", "of_limit", f"B {batch:,}")
    axes.set_ylim(0, 1.2)
    save(fig, axes, folder, "limit")

    fig, axes = figure("AVX-512 against AVX2, one thread, f32", "dim", "time of AVX2 / time of AVX-512", y=False)
    for engine, batch, label in (("gather", 4096, "gather, B 4096, 20 rounds"), ("tiles", 1024, "tiles, B 1024")):
        times = {isa: {r["dim"]: r["ms"] for r in select(data, engine=engine, batch=batch, isa=isa, threads=1)
                       if r["rounds"] in (20, None)} for isa in ("avx2", "avx512")}
        dims = sorted(set(times["avx2"]) & set(times["avx512"]))
        axes.plot(dims, [times["avx2"][d] / times["avx512"][d] for d in dims], "o-", markersize=4, label=label)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylim(0, None)
    save(fig, axes, folder, "isa")

    fig, axes = plt.subplots(figsize=(6.4, 4.4))
    shape = next(p for p in peers if p["rounds"])
    medians = {label: statistics.median(s) * 1e3 for label, s in shape["seconds"].items()}
    labels = sorted(medians, key=medians.get, reverse=True)
    bars = axes.barh(labels, [medians[k] for k in labels], color=["#08519c" if k == "negcos" else "#9ecae1" for k in labels])
    axes.bar_label(bars, [f"{medians[k]:.1f} ms" for k in labels], padding=3)
    axes.set(title=f"B {shape['batch']}, d {shape['dim']}, {shape['rounds']} rounds, f32, {shape['threads']} threads",
             xlabel="ms for the loss and both gradients")
    axes.set_xlim(0, 1.2 * max(medians.values()))
    axes.spines[["top", "right"]].set_visible(False)
    save(fig, axes, folder, "peers")


if __name__ == "__main__":
    main()
