#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sizes, offsets, constants and functions of negcos.h, one fact a line: what bindings declare again, and their tests read.

    layout.py INCLUDE_FOLDER RECORD [--update]

Fails when the header says something other than RECORD (capi/negcos.layout), or writes it. The names come out of the
header's text, the numbers out of a C program ($CC, cc by default).
"""
import difflib
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

SCALARS = {"uint32_t": "u32", "int32_t": "i32", "uint64_t": "u64", "int64_t": "i64", "double": "f64"}
HEADING = """\
# SPDX-License-Identifier: Apache-2.0
# The layout of the C ABI, made by tests/abi/layout.py from negcos.h, on a machine with pointers of 64 bits.
#   struct NAME SIZE | field STRUCT NAME OFFSET SIZE TYPE | constant NAME VALUE | function NAME
"""


def structs(text):
    """{name: [(field, type)]} of every struct that has fields."""
    found = {}
    for body, name in re.findall(r"typedef struct(?:\s+\w+)?\s*\{(.*?)\}\s*(\w+);", text, re.DOTALL):
        fields = []
        for declaration in filter(None, map(str.strip, body.split(";"))):
            kind, names = re.fullmatch(r"(?:const\s+)?(\w+)\s*(.*)", declaration, re.DOTALL).groups()
            for field in map(str.strip, names.split(",")):
                pointer = field.startswith("*") or kind.endswith("_fn")
                fields.append((field.lstrip("* "), "pointer" if pointer else SCALARS.get(kind, kind)))
        found[name] = fields
    return found


def layout(include):
    text = (include / "negcos/negcos.h").read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    prints = []
    for name, fields in structs(text).items():
        prints.append(f'printf("struct {name} %zu\\n", sizeof({name}));')
        for field, kind in fields:
            prints.append(
                f'printf("field {name} {field} %zu %zu {kind}\\n", offsetof({name}, {field}), '
                f"sizeof((({name}*)0)->{field}));"
            )
    for body in re.findall(r"\benum\s*\{(.*?)\}", text, re.DOTALL):
        for constant in re.findall(r"\bNEGCOS_\w+", body):
            prints.append(f'printf("constant {constant} %d\\n", (int){constant});')
    functions = re.findall(r"^NEGCOS_API [^(]*?(\w+)\(", text, re.MULTILINE)
    program = "#include <negcos/negcos.h>\n#include <stdio.h>\nint main(void) {\n%s\n}\n" % "\n".join(prints)
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "layout.c"
        source.write_text(program, encoding="utf-8")
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run([*compiler, "-std=c99", "-I", include, source, "-o", source.with_suffix("")], check=True)
        numbers = subprocess.run([source.with_suffix("")], check=True, stdout=subprocess.PIPE, text=True).stdout
    return HEADING + numbers + "".join(f"function {name}\n" for name in functions)


def main():
    include, record = map(pathlib.Path, sys.argv[1:3])
    now = layout(include)
    if sys.argv[3:] == ["--update"]:
        record.write_text(now, encoding="utf-8")
        return 0
    recorded = record.read_text(encoding="utf-8")
    sys.stdout.writelines(difflib.unified_diff(recorded.splitlines(True), now.splitlines(True), str(record), "negcos.h"))
    facts = [line for line in now.splitlines() if not line.startswith("#")]
    print(f"layout: {len(facts)} facts of negcos.h, {'as recorded' if now == recorded else 'not as recorded'}")
    return 0 if now == recorded and len(facts) > 100 else 1


sys.exit(main())
