# SPDX-License-Identifier: Apache-2.0
"""The README's code, and the example, run as they are."""

import re
import subprocess
import sys


def run(*arguments):
    said = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_readme(source_root, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (source_root / "bindings/python/README.md").read_text(), re.S | re.M)
    assert len(blocks) >= 2
    script = tmp_path / "readme.py"
    script.write_text(
        "\n".join(block for block in blocks if not re.search(r"^import (torch|tensorflow|jax)\b", block, re.M))
    )
    said = run(str(script))
    losses = [float(loss) for loss in re.findall(r"^loss ([0-9.]+), accuracy [0-9.]+$", said, re.M)]
    assert len(losses) == 3 and losses[2] < losses[0]
    assert re.search("^gradients of 64 documents and then of [0-9]+ hard negatives$", said, re.M)


def test_example(source_root):
    said = run(str(source_root / "bindings/python/examples/two_tower.py"))
    before, after = (float(re.search(rf"^Recall@10 {when} ([0-9.]+)$", said, re.M)[1]) for when in ("before", "after"))
    assert before < 0.05 and after > 0.6
