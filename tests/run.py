#!/usr/bin/env python3
"""Runs every test of a build (lit.cfg.py) and ends in one line of counts.

    tests/run.py BUILD [--sanitized BUILD] [--filter REGEX] [--jobs N]

--sanitized also runs the lit tests and the C programs of a build with sanitizers.  Exit status: 0 when nothing failed and
something passed.  Skipped tests are listed by name with their reason.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

TESTS = pathlib.Path(__file__).resolve().parent
LIT = "/usr/lib/llvm-19/build/utils/lit/lit.py"
PASSED, SKIPPED = {"PASS", "XFAIL", "FLAKYPASS"}, {"UNSUPPORTED", "SKIPPED"}
SHOWN_LINES = 60


def run_lit(build, suite, args, is_sanitized):
    """Results of lit over `suite` with the tools of `build`: [{name, code, output}]."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "results.json"
        command = [sys.executable, args.lit, "-q", f"-j{args.jobs}", f"--output={out}", f"--param=build={build}"]
        if is_sanitized:
            command.append("--param=sanitized=1")
        if args.filter:
            command.append(f"--filter={args.filter}")
        done = subprocess.run(command + [str(suite)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if not out.exists():
            print(done.stdout.decode(errors="replace"))
            return [{"name": f"lit over {suite}", "code": "UNRESOLVED", "output": "lit did not run"}]
        return json.loads(out.read_text())["tests"]


def show(test, label):
    lines = test["output"].strip().splitlines()
    print(f"{label}: {test['name']}")
    for line in lines[-SHOWN_LINES:]:
        print(f"    {line}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--sanitized", metavar="BUILD")
    parser.add_argument("--filter", metavar="REGEX")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--suite", default=TESTS, help="folder of the lit suite (for the runner's own test)")
    parser.add_argument("--lit", default=LIT, help=f"lit.py (default: {LIT})")
    args = parser.parse_args()
    tests = run_lit(args.build, args.suite, args, False)
    if args.sanitized:
        for test in run_lit(args.sanitized, args.suite, args, True):
            tests.append({**test, "name": f"{test['name']} (sanitized)"})
    passed = [t for t in tests if t["code"] in PASSED]
    skipped = [t for t in tests if t["code"] in SKIPPED]
    failed = [t for t in tests if t["code"] not in PASSED | SKIPPED]
    for test in skipped:
        show(test, "skipped")
    for test in failed:
        show(test, "FAILED")
    print(f"{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
