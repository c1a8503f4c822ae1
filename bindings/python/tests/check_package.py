# SPDX-License-Identifier: Apache-2.0
"""What is in the source archive, and in the package that this interpreter has installed, by name and by metadata.

check_package.py ARCHIVE SOURCE_ROOT
"""

import platform
import re
import sys
import tarfile
from importlib.metadata import distribution
from pathlib import Path

import negcos

archive, root = map(Path, sys.argv[1:])
header = (root / "include/negcos/negcos.h").read_text()
version = ".".join(re.search(rf"NEGCOS_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH"))

assert archive.name == f"negcos-{version}.tar.gz", archive.name
with tarfile.open(archive) as archived:
    names = {name.split("/", 1)[1] for name in archived.getnames() if "/" in name}
assert {"PKG-INFO", "pyproject.toml", "meson.build", "include/negcos/negcos.h", "LICENSE"} <= names
assert not [name for name in names if name.startswith(("build", ".git/")) or name.endswith((".so", ".pyc"))]

installed = distribution("negcos")
assert Path(negcos.__file__).is_relative_to(sys.prefix), negcos.__file__
assert installed.version == negcos.__version__ == version, installed.version
tags = re.findall(r"^Tag: (.*)$", installed.read_text("WHEEL"), re.M)
assert tags == [f"py3-none-linux_{platform.machine()}"], tags
names = {path.as_posix() for path in installed.files if path.suffix != ".pyc"}
(library,) = (name for name in names if "libnegcos" in name)
package = root / "bindings/python/negcos"
sources = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.suffix in (".py", ".typed")}
modules = {name[len("negcos/") :] for name in names if name.startswith("negcos/")}
assert modules == sources, modules ^ sources
rest = {name for name in names if not name.startswith("negcos/") and ".dist-info/" not in name}
assert rest == {library}, rest  # no header, no command, no static library
assert any(name.endswith("LICENSE") for name in names), names
binary = Path(installed.locate_file(library)).read_bytes()
assert b"libtbb" not in binary
for line in ("Name: negcos", "Requires-Python: >=3.9", "Requires-Dist: numpy>=1.22"):
    assert line in installed.read_text("METADATA").splitlines(), installed.read_text("METADATA")
print(f"{archive.name}: {archive.stat().st_size} bytes, {library}: {len(binary)} bytes")
