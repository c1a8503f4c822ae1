#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where the command accepts a .npy file, NumPy reads the same numbers from it.

    npy_numpy.py NPY_DESCRIBE CORPUS...

The files are those of the fuzzer's corpora, files of NumPy's with bytes of their headers changed, and headers written
anew in every version of the format. What NumPy makes of odd ones depends on its release: before 1.24 it had no limit to
their length, newer ones mend only what Python cannot read. What the command accepts, all of them have to read alike.
"""
import io
import pathlib
import random
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy as np
except ImportError:
    print("SKIP: npy against NumPy: no NumPy here")
    sys.exit(77)

describe, corpora = sys.argv[1], sys.argv[2:]
warnings.simplefilter("ignore")  # NumPy's about headers of Python 2
files = [path.read_bytes() for corpus in corpora for path in sorted(pathlib.Path(corpus).iterdir())]

# From NumPy: every type and order, with one or two changes where headers are.
draw = random.Random(1)
pieces = [b"'descr'", b"'fortran_order'", b"'shape'", b"True", b"False", b"<f4", b"<f8", b">f4", b"<i8", b"|O", b"(", b")", b",",
          b" ", b"  ", b" ", b" ", b"\n", b"}", b"{", b"L", b"0", b"1", b"9", b"-", b"+", b"_", b"#", b"'", b"\"", b"\\", b"\0", b"\x80", b"99999999999"]
originals = []
for descr in ("<f2", "<f4", "<f8", "<i4", "<i8", ">f4", "<u4"):
    for shape in ((2, 3), (3, 1), (4,), (0, 5), (5, 0), (1, 2, 3)):
        for order in "CF":
            file = io.BytesIO()
            np.save(file, np.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape), dtype=descr, order=order))
            originals.append(file.getvalue())
files += originals
for _ in range(20000):
    changed = bytearray(draw.choice(originals))
    for _ in range(draw.randint(1, 2)):
        at = draw.randrange(6, min(80, len(changed)))
        kind = draw.randrange(4)
        if kind == 0:
            changed[at] = draw.randrange(256)
        elif kind == 1:
            piece = draw.choice(pieces)
            changed[at:at + len(piece)] = piece
        elif kind == 2:
            piece = draw.choice(pieces)
            changed[at:at] = piece
            del changed[80:80 + len(piece)]  # out of the padding
        else:
            del changed[at]
            changed[70:70] = b" "
    files.append(bytes(changed))

# Whole headers: order, commas, sizes, spaces within and around, up to the limit of length and beyond it.
sizes = [2, 3, 0, "-0", 1, 6, 24, 2**31, 2**59, 2**60, 2**61, 2**62 - 1, 2**63 - 1, 2**63, 2**64]
between = ["", " ", "  ", "\t", "\n", "\n  ", " \n", "\n\t\n "]
around = between + ["\n\n", "   \n  \n   ", "\n  \n", "\n \n\n", "\f", "\r\n", "\r", "\\\n", "#", "\n# \n", ";", ",", "\0"]
for _ in range(20000):
    shape = "(2, 3)" if draw.randrange(3) else f"({draw.choice(sizes)}, {draw.choice(sizes)})"
    entries = ["'descr': '<f4'", f"'fortran_order': {draw.choice([False, True])}", f"'shape': {shape}"]
    draw.shuffle(entries)
    text = "{" + ", ".join(entries) + draw.choice(["}", ",}", ", }"])
    for _ in range(draw.choice([0, 0, 1, 2])):  # space beside any sign
        at = draw.choice([at for at, c in enumerate(text) if c in "{}:,()"]) + draw.randrange(2)
        text = text[:at] + draw.choice(between) + text[at:]
    before = draw.choice(around) if draw.randrange(4) == 0 else ""
    behind = "".join(draw.choice(around) for _ in range(draw.randrange(3))) + draw.choice(["", "\n"])
    if draw.randrange(4) == 0:
        length = draw.choice([200, 4096, 9999, 10000, 10001, 20000, 65000]) - len(before + text + behind)
        padding = draw.choice([" ", "\t", "\n"]) * length
        at = draw.randrange(3)
        before, behind = before + padding * (at == 0), padding * (at == 1) + behind + padding * (at == 2)
    header = (before + text + behind).encode()
    version = draw.choice([1, 2, 3])
    length = len(header) + (draw.randrange(-2, 3) if draw.randrange(16) == 0 else 0)
    elements = bytes(range(24)) if shape == "(2, 3)" or draw.randrange(2) else b""
    preamble = b"\x93NUMPY" + bytes([version, 0]) + length.to_bytes(2 if version == 1 else 4, "little")
    files.append(preamble + header + elements)

accepted = turned = 0
with tempfile.TemporaryDirectory() as folder:
    paths = [pathlib.Path(folder) / str(k) for k in range(len(files))]
    for path, content in zip(paths, files):
        path.write_bytes(content)
    lines = []
    for first in range(0, len(paths), 1000):
        lines += subprocess.run([describe, *paths[first:first + 1000]], check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == len(files)
    for content, path, line in zip(files, paths, lines):
        for kind, said in zip(("matrix", "list"), line.split(";")):
            if said == "refused":
                continue
            accepted += 1
            descr, rows, cols, numbers = said.split(" ")
            shape = (int(rows), int(cols))
            try:
                array = np.load(path, allow_pickle=False)
            except Exception as error:
                sys.exit(f"accepted as a {kind}, refused by NumPy ({error}): {content!r}")
            if array.dtype.str != descr or array.size != shape[0] * shape[1] or \
                    array.shape not in (shape, shape[:1] if kind == "list" else shape):
                sys.exit(f"{descr} {shape} as a {kind}, {array.dtype.str} {array.shape} by NumPy: {content!r}")
            if array.tobytes() != bytes.fromhex(numbers):  # in C order, whatever the array's
                sys.exit(f"other numbers than NumPy's: {content!r}")
            turned += not array.flags.c_contiguous
if accepted < 500 or turned < 500:
    sys.exit(f"only {accepted} of {len(files)} files were accepted, {turned} of them in Fortran order")
print(f"npy: {accepted} readings of {len(files)} files are NumPy's, {turned} of them in Fortran order")
