#!/usr/bin/env python3
"""Compiles and trains every golden case of this directory with the build in $ZMC_BUILD; the numbers: README.md."""
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def main():
    build = pathlib.Path(os.environ.get("ZMC_BUILD", HERE.parents[1] / "build"))
    failed, cases = 0, sorted(HERE.glob("*.json"))
    if not cases:
        sys.exit("no golden cases in %s" % HERE)
    for case in cases:
        done = subprocess.run([sys.executable, HERE / "check_golden.py", "--zmc", build / "zmc", case])
        failed += done.returncode != 0
    print("%s: %d cases, %d failed" % ("FAIL" if failed else "PASS", len(cases), failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
