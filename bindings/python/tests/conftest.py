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
