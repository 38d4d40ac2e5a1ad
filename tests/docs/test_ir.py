#!/usr/bin/env python3
"""docs/ir.md: each `zir` block is accepted and its printed form prints the same again; each `zir-error` block is refused with the
message of the block after it."""
import os
import pathlib
import subprocess
import sys

from doc_blocks import blocks

ZM_OPT = pathlib.Path(os.environ.get("ZMC_BUILD", "build")).resolve() / "zm-opt"


def zm_opt(text):
    done = subprocess.run([ZM_OPT, "-"], input=text, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def main():
    failures, count = 0, 0
    page = blocks("ir.md")
    for i, (info, text) in enumerate(page):
        problem = None
        if info == "zir":
            status, once, err = zm_opt(text)
            twice = zm_opt(once)[1] if status == 0 else ""
            if status != 0 or once != twice:
                problem = err or "does not print the same again"
        elif info == "zir-error":
            wanted_info, wanted = page[i + 1]
            status, _, err = zm_opt(text)
            if wanted_info != "message" or status == 0 or wanted.strip() not in err:
                problem = f"wanted '{wanted.strip()}', got status {status}:\n{err}"
        else:
            continue
        count += 1
        if problem:
            failures += 1
            print(f"block:\n{text}\n{problem}")
    print(f"{count} blocks, {failures} failed")
    return failures != 0 or count < 8


if __name__ == "__main__":
    sys.exit(main())
