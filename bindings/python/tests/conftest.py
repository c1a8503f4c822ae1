# SPDX-License-Identifier: Apache-2.0
"""The package is the one on PYTHONPATH, or the installed one; SOURCE_ROOT holds the recorded layouts and bits."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

SOURCE_ROOT = Path(os.environ.get("SOURCE_ROOT") or Path(__file__).parents[3])


@pytest.fixture(scope="session")
def source_root():
    return SOURCE_ROOT


def pytest_generate_tests(metafunc):
    if "golden_call" in metafunc.fixturenames:
        lines = (SOURCE_ROOT / "tests/golden/calls.txt").read_text().splitlines()
        calls = [dict(pair.split("=", 1) for pair in line.split()) for line in lines if line and line[0] != "#"]
        metafunc.parametrize("golden_call", calls, ids=[f"{call['name']}-{call['dtype']}" for call in calls])


def pytest_terminal_summary(terminalreporter):
    """What was left out and why, and the count, as the tests of every language end."""
    stats = terminalreporter.stats
    for reason in sorted({report.longrepr[2] for report in stats.get("skipped", ())}):
        terminalreporter.write_line(f"SKIP: python: {reason.removeprefix('Skipped: ')}")
    failed = sum(len(stats.get(outcome, ())) for outcome in ("failed", "error"))
    terminalreporter.write_line(f"{len(stats.get('passed', ()))} passed, {failed} failed")
