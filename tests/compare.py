#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds two commits side by side and compares the bytes of every output of many calls; with --speed, their times too.

    compare.py [--draws N] [--allow-different] [--speed [--turns N] [--filter REGEX]] BASE [HEAD]

HEAD is by default this tree, without files that git does not know. The calls are those of golden/digests.txt and others
like them, in so many draws (10; 0 = none), all made by one program, this tree's test_digests, with the library of each commit.
Where bytes differ, it says by type and output how far: in units in the last place of the element, and of the largest
element in its row, which also tells something about sums that nearly cancel. Exit status 1 when bytes differ, unless
--allow-different.

--speed: every row of `bench kernels` (each commit's own) and of `bench --figures` (this tree's, with the library of each
commit), and the median of HEAD's time over BASE's in so many turns (7).
"""
import argparse
import collections
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

import numpy as np

import digests

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "compare"
PRECISION = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}
LEAST = {"f64": -1074, "f32": -149, "f16": -24, "bf16": -133}  # exponents of the least numbers


def git(*command):
    return subprocess.run(["git", "-C", ROOT, *command], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def build(commit, *targets):
    """The build folder of a commit, with these targets built."""
    folder = FOLDER / commit[:12]
    source, built = folder / "source", folder / "build"
    if not source.exists():
        partial = folder / "partial"
        partial.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "-C", ROOT, "archive", commit], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", partial], input=archive, check=True)
        partial.rename(source)
    options = {"tests": "test_digests" in targets, "bench": any("bench" in target for target in targets)}
    again = ["--reconfigure"] if (built / "build.ninja").exists() else []
    with open(folder / "log", "w", encoding="utf-8") as log:
        for command in (["meson", "setup", *again, built, source, "-Dcommand=false", "-Dexamples=false",
                         *(f"-D{name}={str(value).lower()}" for name, value in options.items())],
                        ["meson", "compile", "-C", built, *targets]):
            if subprocess.run(command, stdout=log, stderr=log, check=False).returncode != 0:
                sys.exit(f"compare: could not build {commit[:12]}; see {folder / 'log'}")
    return built


def with_library(built):
    """The environment in which programs use the library of that build. Its name may be another than theirs."""
    library, = {path.resolve() for path in built.glob("libnegcos.so.*") if path.suffix != ".p" and path.is_file()}
    return dict(os.environ, LD_PRELOAD=str(library))


def each_call(program, built, draws):
    """(call, {output: bytes}) of all calls with the library of that build."""
    read_end, write_end = os.pipe()
    environment = dict(with_library(built), NEGCOS_DIGESTS_OUT=f"/dev/fd/{write_end}", NEGCOS_DIGESTS_DRAWS=str(draws))
    process = subprocess.Popen([program], env=environment, pass_fds=[write_end], stdout=subprocess.PIPE, text=True)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        frames = ((*name.split("\t"), data) for name, data in digests.frames(stream))
        for call, outputs in itertools.groupby(frames, lambda frame: frame[0]):
            yield call, {output: data for _, output, data in outputs}
    told, _ = process.communicate()
    if process.returncode != 0:
        sys.exit(f"{told}\ncompare: {program} failed with the library in {built}")


def numbers(data, dtype):
    if dtype == "bf16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.frombuffer(data, {"f16": np.float16, "f32": np.float32, "f64": np.float64}[dtype]).astype(np.float64)


def ordered(bits):
    """Bits as integers that count the numbers of the type in their order."""
    wide = bits.astype(np.int64)
    return np.where(wide < 0, np.iinfo(bits.dtype).min - wide, wide)


class Difference:
    """How far one output is off, over all calls of a type. Numbers that were computed in f32 are measured in its ulp."""

    def __init__(self, of_calls, dtype):
        self.name = of_calls
        self.dtype = dtype
        self.in_f32 = dtype == "f64" and not of_calls.startswith("f64")
        self.calls = self.different = self.rows = self.different_rows = self.nan = 0
        self.ulp, self.worst = -1, None
        self.of_row = []  # of each row that differs: in ulp of its largest element

    def add(self, call, columns, base, head):
        size = {"f64": 8, "i64": 8, "f32": 4, "i32": 4}.get(self.dtype, 2)
        length = max(len(base), len(head))
        self.calls += 1
        self.rows += length // size // max(columns, 1)
        if base == head:
            return
        # what stands there only where it is not 0 may be missing
        base, head = (each or bytes(length) for each in (base, head))
        if len(base) != len(head):
            sys.exit(f"compare: {call}: outputs of different lengths")
        bits = [np.frombuffer(each, f"i{size}").reshape(-1, columns) for each in (base, head)]
        rows = (bits[0] != bits[1]).any(axis=1)
        self.different += 1
        self.different_rows += int(rows.sum())
        bits = [each[rows] for each in bits]
        if self.dtype in PRECISION:
            values = [numbers(each, self.dtype).reshape(-1, columns)[rows] for each in (base, head)]
            nan = [np.isnan(each) for each in values]
            self.nan += int((nan[0] != nan[1]).sum())
            # not of infinite numbers, nor NaN: their bits are told apart by rows
            known = np.isfinite(values[0]) & np.isfinite(values[1])
            values = [np.where(known, each, 0) for each in values]
            bits = [np.where(known, ordered(each), 0) for each in bits]
            precision = PRECISION["f32" if self.in_f32 else self.dtype]
            _, exponent = np.frexp(np.max(np.abs(values), axis=(0, 2)))
            unit = np.ldexp(1.0, np.maximum(exponent - precision, LEAST[self.dtype]))
            self.of_row.append(np.abs(values[0] - values[1]).max(axis=1) / unit)
        high, low = (which(*(each.astype(np.int64) for each in bits)) for which in (np.maximum, np.minimum))
        ulp = int((high.view(np.uint64) - low.view(np.uint64)).max())  # may be beyond int64
        if ulp > self.ulp:
            self.ulp, self.worst = ulp, call

    def __str__(self):
        ulp = self.ulp / 2**29 if self.in_f32 else self.ulp
        of_row = np.concatenate(self.of_row) if self.of_row else np.zeros(1)
        half, most, every = np.quantile(of_row, [0.5, 0.99, 1])
        return (f"{self.name:<24} {self.different:>7} of {self.calls:>7} {self.different_rows:>9} of {self.rows:>9} {ulp:>9.3g}"
                f" {half:>9.3g} {most:>9.3g} {every:>9.3g} {self.nan:>7}  {self.worst}")


def compare_bytes(program, base, head, draws):
    """Whether all bytes were equal."""
    total = equal = 0
    refused = {"BASE": [], "HEAD": []}
    differences = {}
    for (call, of_base), (other, of_head) in zip(each_call(program, base, draws), each_call(program, head, draws), strict=True):
        assert call == other
        total += 1
        equal += of_base == of_head
        for side, outputs in (("BASE", of_base), ("HEAD", of_head)):
            if "refused" in outputs and of_base != of_head:
                refused[side].append(f"{call}: {outputs['refused'].decode()}")
        if "refused" in of_base or "refused" in of_head:
            continue
        for output in {**of_base, **of_head}:
            name, dtype, columns = output.split(" ")
            name = f"{call.split(' ')[0]} {name}"
            difference = differences.setdefault(name, Difference(name, dtype))
            difference.add(call, int(columns), of_base.get(output, b""), of_head.get(output, b""))
    print(f"{total} calls, {equal} equal in all bytes")
    for side, calls in refused.items():
        if calls:
            print(f"{side} refused {len(calls)}, e.g. {calls[0]}")
    if any(each.different for each in differences.values()):
        print(f"{'':<24} {'calls that differ':>18} {'rows that differ':>22} {'most ulp':>9} {'of the largest in its row:':>29}"
              f" {'one NaN':>7}  where most\n{'':<24} {'':>18} {'':>22} {'':>9} {'half':>9} {'99 %':>9} {'all':>9}")
    for difference in differences.values():
        if difference.different:
            print(difference)
    return equal + len(refused["BASE"]) == total


def rows_of(command):
    told = subprocess.run([*command, "--benchmark_list_tests"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return told.splitlines()


def times_of(command, environment, rows):
    """Nanoseconds of each row, or None where it could not run: of the processor where one thread works, as others may
    be at work on this machine."""
    pattern = "^(" + "|".join(map(re.escape, rows)) + ")$"
    told = subprocess.run([*command, f"--benchmark_filter={pattern}", "--benchmark_format=json", "--benchmark_min_time=0.05"],
                          env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    unit = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}
    clock = {name: "real_time" if re.search(r"/threads:(?!1/)", name) else "cpu_time" for name in rows}
    return {row["name"]: None if row.get("error_occurred") else row[clock[row["name"]]] * unit[row["time_unit"]]
            for row in json.loads(told)["benchmarks"]}


def compare_times(title, base, head, turns, wanted):
    """base, head: (command, environment). A few rows at a time, so that what disturbs one disturbs both."""
    of_base, of_head = (list(filter(wanted.search, rows_of(command))) for command, _ in (base, head))
    rows = [row for row in of_head if row in of_base]
    alone = len(set(of_base) ^ set(of_head))
    print(f"\n{title}: {len(rows)} rows" + (f", {alone} more of one commit alone" if alone else ""))
    print(f"{'BASE, us':>12} {'HEAD, us':>12}  HEAD/BASE  (of all turns)")
    medians = []
    for start in range(0, len(rows), 8):
        some = rows[start : start + 8]
        pairs = collections.defaultdict(list)
        for turn in range(turns):
            sides = [(0, base), (1, head)]
            times = [None, None]
            for which, side in sides if turn % 2 == 0 else reversed(sides):
                times[which] = times_of(*side, some)
            for row in some:
                pairs[row].append((times[0][row], times[1][row]))
        for row, taken in pairs.items():
            if any(time is None for pair in taken for time in pair):
                print(f"{row}: could not run")
                continue
            ratios = sorted(of_head / of_base for of_base, of_head in taken)
            medians.append(statistics.median(ratios))
            us = [statistics.median(of_side) / 1e3 for of_side in zip(*taken)]
            print(f"{us[0]:12.2f} {us[1]:12.2f}  {medians[-1]:9.3f}  ({ratios[0]:.2f} to {ratios[-1]:.2f})  {row}", flush=True)
    if medians:
        print(f"{title}: {statistics.geometric_mean(medians):.3f} in the geometric mean, {min(medians):.3f} to {max(medians):.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("head", nargs="?")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--allow-different", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--filter", type=re.compile, default=re.compile(""))
    options = parser.parse_args()
    here = git("stash", "create") or git("rev-parse", "HEAD")
    base = git("rev-parse", "--verify", f"{options.base}^{{commit}}")
    head = git("rev-parse", "--verify", f"{options.head}^{{commit}}") if options.head else here

    targets = collections.defaultdict(set)
    for commit in (base, head, here):
        targets[commit] = {"negcos:shared_library", *(["bench_kernels"] if options.speed else [])}
    targets[here] |= {"test_digests", *(["bench"] if options.speed else [])}
    builds = {commit: build(commit, *sorted(wanted)) for commit, wanted in targets.items()}
    print(f"BASE {base[:12]}, HEAD {head[:12]}", flush=True)
    same = not options.draws or compare_bytes(builds[here] / "tests/test_digests", builds[base], builds[head], options.draws)
    if options.speed:
        compare_times("kernels", *(([builds[commit] / "bench/bench_kernels"], None) for commit in (base, head)),
                      options.turns, options.filter)
        compare_times("calls", *(([builds[here] / "bench/bench", "--figures"], with_library(builds[commit]))
                                 for commit in (base, head)), options.turns, options.filter)
    return 0 if same or options.allow_different else 1


if __name__ == "__main__":
    sys.exit(main())
