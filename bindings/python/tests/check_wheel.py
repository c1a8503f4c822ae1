# SPDX-License-Identifier: Apache-2.0
"""What is in the wheel and the source archive, by name and by metadata.

check_wheel.py DIST_FOLDER SOURCE_ROOT
"""

import platform
import re
import sys
import tarfile
import zipfile
from pathlib import Path

dist, root = map(Path, sys.argv[1:])
header = (root / "include/negcos/negcos.h").read_text()
version = ".".join(re.search(rf"NEGCOS_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH"))

(wheel,) = dist.glob("*.whl")
assert wheel.name == f"negcos-{version}-py3-none-linux_{platform.machine()}.whl", wheel.name
with zipfile.ZipFile(wheel) as archive:
    names = {name for name in archive.namelist() if not name.endswith("/")}
    metadata = archive.read(f"negcos-{version}.dist-info/METADATA").decode()
    (library,) = (name for name in names if "libnegcos" in name)
    binary = archive.read(library)
package = root / "bindings/python/negcos"
sources = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.suffix in (".py", ".typed")}
modules = {name.split("/negcos/", 1)[1] for name in names if "/negcos/" in name}
assert modules == sources, modules ^ sources
rest = {name for name in names if "/negcos/" not in name and ".dist-info/" not in name}
assert rest == {library}, rest  # no header, no command, no static library
assert any(name.endswith("LICENSE") for name in names), names
assert b"libtbb" not in binary
for line in ("Name: negcos", f"Version: {version}", "Requires-Python: >=3.9", "Requires-Dist: numpy>=1.22"):
    assert line in metadata.splitlines(), metadata

(archive_path,) = dist.glob("*.tar.gz")
assert archive_path.name == f"negcos-{version}.tar.gz", archive_path.name
with tarfile.open(archive_path) as archive:
    names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
assert {"PKG-INFO", "pyproject.toml", "meson.build", "include/negcos/negcos.h", "LICENSE"} <= names
assert not [name for name in names if name.startswith(("build", ".git/")) or name.endswith((".so", ".pyc"))]
print(f"{wheel.name}: {wheel.stat().st_size} bytes, {archive_path.name}: {archive_path.stat().st_size} bytes")
