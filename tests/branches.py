#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints which branches were taken, by gcov's own reading of what a build with -Db_coverage=true left behind.

    branches.py ROOT WHOLE BUILD...     fails unless in the files of the folder WHOLE every branch was taken

Each instance of a template counts for itself in WHOLE, elsewhere any of them. The edges on which an exception would
leave are no branches of ours; gcovr, up to 8.8 at least, counts them as never taken.
"""
import collections
import json
import pathlib
import subprocess
import sys

root, whole, builds = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:]
counts = collections.defaultdict(int)  # of (file, line, instance, which of the line's branches)
for build in map(pathlib.Path, builds):
    for data in sorted(build.glob("*.p/*.gcda")):
        told = subprocess.run(["gcov", "--branch-probabilities", "--json-format", "--stdout", data.resolve()],
                              cwd=build, check=True, capture_output=True, text=True).stdout
        for file in json.loads(told)["files"]:
            path = (build / file["file"]).resolve()
            if not path.is_relative_to(root) or path.is_relative_to(build.resolve()):
                continue
            for line in file["lines"]:
                name = str(path.relative_to(root))
                instance = line.get("function_name", "") if name.startswith(whole) else ""
                for which, branch in enumerate(line["branches"]):
                    if not branch["throw"]:
                        counts[name, line["line_number"], instance, which] += branch["count"]

lines = collections.defaultdict(lambda: collections.defaultdict(list))
for (file, line, *_), count in sorted(counts.items()):
    lines[file][line].append(count > 0)
print(f"{'file':<36} {'branches':>9} {'taken':>9}       lines with others")
failed = False
for file, of_line in sorted(lines.items()):
    branches = sum(map(len, of_line.values()))
    taken = sum(map(sum, of_line.values()))
    others = [str(line) for line, each in of_line.items() if not all(each)]
    print(f"{file:<36} {branches:>9} {taken:>9} {taken / branches:>5.0%} {','.join(others)}")
    failed |= file.startswith(whole) and taken < branches
if not any(file.startswith(whole) for file in lines):
    sys.exit(f"branches: nothing of {whole} was run")
sys.exit(f"branches: in {whole} some were never taken" if failed else 0)
