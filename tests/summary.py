#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads meson's testlog.json files and prints every skip and one closing line.

What doctest ran counts by test cases, as does a test that says `N passed, N failed`; any other test as one. That a machine cannot run an instruction set is one skip,
with the number of tests that it leaves out. A test that did not end well counts as at least one
failure. `--told FILE` first: lines that begin with SKIP or FAILED, of what has no log, and lines `N passed, N
failed`. Exit status 1 unless something passed and nothing failed.
"""
import json
import pathlib
import re
import sys

CASES = re.compile(r"^(?:\[doctest\] test cases: *\d+ *\| *)?(\d+) passed(?: *\| *|, )(\d+) failed(?:$| *\|)", re.MULTILINE)
CANNOT_RUN = re.compile(r"^SKIP: .* on (\w+): this machine cannot run it$")

passed = failed = 0
skips = []
paths = sys.argv[1:]
if paths[:1] == ["--told"]:
    with open(paths[1], encoding="utf-8") as file:
        told = file.read().splitlines()
    skips += [line for line in told if line.startswith("SKIP: ")]
    failures = [line for line in told if line.startswith("FAILED: ")]
    print("\n".join(failures), end="\n" if failures else "")
    failed += len(failures)
    for right, wrong in CASES.findall("\n".join(told)):
        passed += int(right)
        failed += int(wrong)
    del paths[:2]
for path in paths:
    machine = pathlib.Path(path).stem.removesuffix("-emulated.sh")
    cannot_run = {}
    with open(path, encoding="utf-8") as log:
        for test in map(json.loads, log):
            output = test.get("stdout", "")
            for line in dict.fromkeys(re.findall(r"^SKIP: .*$", output, re.MULTILINE)):
                if isa := CANNOT_RUN.match(line):
                    cannot_run[isa[1]] = cannot_run.get(isa[1], 0) + 1
                else:
                    skips.append(f"{line} ({machine})")
            cases = [(int(right), int(wrong)) for right, wrong in CASES.findall(output)]
            ended_well = test["result"] in ("OK", "SKIP")
            if cases and test["result"] != "TIMEOUT":
                passed += sum(right for right, _ in cases)
                # where none ran a name is wrong
                failed += max(sum(wrong for _, wrong in cases), not ended_well or any(right == 0 for right, _ in cases))
            elif test["result"] != "SKIP":
                passed += ended_well
                failed += not ended_well
            if not ended_well:
                print(f"FAILED: {test['name']} ({machine}: {test['result']})")
    skips += [f"SKIP: {isa} in {count} tests: this machine cannot run it ({machine})" for isa, count in cannot_run.items()]
for line in skips:
    print(line)
print(f"{passed} passed, {failed} failed, {len(skips)} skipped")
sys.exit(0 if passed > 0 and failed == 0 else 1)
