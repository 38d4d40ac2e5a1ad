#!/usr/bin/env python3
"""Tests the test runner: a suite with a failing test must fail, skips are counted and named, nothing run is a failure."""
import pathlib
import shutil
import subprocess
import sys
import tempfile

TESTS = pathlib.Path(__file__).resolve().parent


def run(tests):
    """Status and last line of run.py over a copy of lit.cfg.py with the given lit tests."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "tests" / "lit").mkdir(parents=True)
        for part in ("lit.cfg.py", "lit_format.py"):
            shutil.copy(TESTS / part, root / "tests")
        for name, text in tests.items():
            path = root / "tests" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        done = subprocess.run([sys.executable, str(TESTS / "run.py"), str(root / "build"), f"--suite={root / 'tests'}", "--jobs=1"],
                              capture_output=True, text=True)
        return done.returncode, done.stdout


PASS, FAIL, UNSUPPORTED = "// RUN: true\n", "// RUN: false\n", "// REQUIRES: no-such-thing\n// RUN: false\n"
CASES = [
    ({"lit/a.zir": PASS}, 0, "1 passed, 0 failed, 0 skipped", ""),
    ({"lit/a.zir": PASS, "lit/b.zir": FAIL}, 1, "1 passed, 1 failed, 0 skipped", "FAILED: zmc :: lit/b.zir"),
    ({"lit/a.zir": PASS, "lit/b.zir": UNSUPPORTED}, 0, "1 passed, 0 failed, 1 skipped", "skipped: zmc :: lit/b.zir"),
    ({"lit/a.zir": "no run line\n"}, 1, "0 passed, 1 failed, 0 skipped", "FAILED: zmc :: lit/a.zir"),
    ({"lit/a.zir": PASS, "unit/x.c": "never built\n"}, 1, "1 passed, 1 failed, 0 skipped", "was not built"),
    ({"lit/a.zir": PASS, "g/test_x.py": "raise SystemExit(1)\n"}, 1, "1 passed, 1 failed, 0 skipped", "FAILED: zmc :: g/test_x.py"),
    ({"lit/a.zir": PASS, "g/test_x.py": "print('no gpu')\nraise SystemExit(77)\n"}, 0, "1 passed, 0 failed, 1 skipped", "no gpu"),
    ({}, 1, "0 passed, 1 failed, 0 skipped", "did not discover any tests"),
]


def main():
    failures = 0
    for tests, status, last, shown in CASES:
        got, text = run(tests)
        lines = text.strip().splitlines()
        if got != status or not lines or lines[-1] != last or shown not in text:
            failures += 1
            print(f"{tests}: wanted status {status}, '{last}', '{shown}'; got status {got} and:\n{text}")
    print(f"{len(CASES)} cases, {failures} failed")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
