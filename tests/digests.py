#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs test_digests and compares the SHA-256 of what every call gave with tests/golden/digests.txt.

    digests.py [--update | --only DTYPE] GOLDEN COMMAND...

--only: the calls of one type. --update writes the file anew: a change of bits is a change of behaviour, to be reviewed
as one. The command runs under $NEGCOS_EMULATOR where that is set. With NEGCOS_TEST_STEP it says which calls it leaves
out; all others are compared.
"""
import hashlib
import os
import shlex
import subprocess
import sys
import threading

HEADER = "# SPDX-License-Identifier: Apache-2.0\n# SHA-256 of every output of a call; made by tests/digests.py --update\n"


def frames(stream):
    """(name, bytes) of each call: a line with the name, a line with the length, the bytes. None where the length is "-":
    that call was left out."""
    while name := stream.readline():
        if (length := stream.readline()) == b"-\n":
            yield name.decode().rstrip("\n"), None
            continue
        length = int(length)
        data = stream.read(length)
        if len(data) != length:
            raise SystemExit(f"digests: cut off in {name.decode().strip()}")
        yield name.decode().rstrip("\n"), data


def main():
    update, only = sys.argv[1] == "--update", sys.argv[2] if sys.argv[1] == "--only" else ""
    golden, *command = sys.argv[3 if only else 2 if update else 1 :]
    if only:
        command.append(f"--test-case=digests: {only}")
    got = {}
    read_end, write_end = os.pipe()

    def hash_all():
        with os.fdopen(read_end, "rb") as stream:
            for name, data in frames(stream):
                got[name] = None if data is None else hashlib.sha256(data).hexdigest()

    reader = threading.Thread(target=hash_all)
    reader.start()
    environment = dict(os.environ, NEGCOS_DIGESTS_OUT=f"/dev/fd/{write_end}")
    command = shlex.split(os.environ.get("NEGCOS_EMULATOR", "")) + command
    process = subprocess.Popen(command, env=environment, pass_fds=[write_end])
    os.close(write_end)
    status = process.wait()
    reader.join()
    if status != 0:
        return 1
    left_out = [name for name, digest in got.items() if digest is None]
    if update and left_out:
        raise SystemExit("digests: --update takes all calls: unset NEGCOS_TEST_STEP")
    if update:
        with open(golden, "w", encoding="utf-8") as file:
            file.write(HEADER)
            file.writelines(f"{digest}  {name}\n" for name, digest in got.items())
        print(f"digests: wrote {len(got)}")
        return 0
    with open(golden, encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("  ", 1) for line in file if not line.startswith("#")]
    expected = {name: digest for digest, name in lines if name.startswith(only + " " if only else "")}
    for name in left_out:
        del got[name]
        if expected.pop(name, None) is None:
            raise SystemExit(f"digests: {name} is left out, and not in {golden}")
    wrong = [name for name in {**expected, **got} if expected.get(name) != got.get(name)]
    for name in wrong[:20]:
        print(f"digests: {name}: {got.get(name, 'absent')}, expected {expected.get(name, 'none')}")
    print(f"digests: {len(got)} calls, {len(got) - len(wrong)} as committed"
          + (f", {len(wrong)} not" if wrong else "") + (f"; {len(left_out)} left out" if left_out else ""))
    return 1 if wrong or not got else 0


if __name__ == "__main__":
    sys.exit(main())
