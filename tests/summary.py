#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads meson's testlog.json files and prints every skip and one closing line.

What doctest ran counts by test cases, any other test as one. A test that did not end well counts as at least one
failure. `--skips FILE` first: lines that begin with SKIP, of what was not even begun. Exit status 1 unless something
passed and nothing failed.
"""
import json
import pathlib
import re
import sys

passed = failed = skipped = 0
paths = sys.argv[1:]
if paths[:1] == ["--skips"]:
    with open(paths[1], encoding="utf-8") as file:
        for line in file:
            print(line, end="")
            skipped += 1
    del paths[:2]
for path in paths:
    with open(path, encoding="utf-8") as log:
        for test in map(json.loads, log):
            output = test.get("stdout", "")
            for line in dict.fromkeys(re.findall(r"^SKIP: .*$", output, re.MULTILINE)):
                print(f"{line} ({pathlib.Path(path).stem})")
                skipped += 1
            cases = re.search(r"^\[doctest\] test cases: *\d+ *\| *(\d+) passed *\| *(\d+) failed", output, re.MULTILINE)
            ended_well = test["result"] in ("OK", "SKIP")
            if cases and test["result"] != "TIMEOUT":
                passed += int(cases[1])
                failed += max(int(cases[2]), not ended_well)
            elif test["result"] != "SKIP":
                passed += ended_well
                failed += not ended_well
            if not ended_well:
                print(f"FAILED: {test['name']} ({test['result']})")
print(f"{passed} passed, {failed} failed, {skipped} skipped")
sys.exit(0 if passed > 0 and failed == 0 else 1)
