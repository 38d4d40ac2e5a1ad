#!/usr/bin/env python3
"""Every diagnostic code of the frontend (E01xx, E02xx, E03xx and the warnings among them) occurs in a test or an example."""
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(os.environ.get("ZMC_ROOT", pathlib.Path(__file__).resolve().parent.parent))


def main():
    codes = re.findall(r'^DIAG\(\w+, "([EW]0[123]\d\d)"', (ROOT / "ir/base/diag.def").read_text(encoding="utf-8"), re.M)
    tests = [*(ROOT / "tests/lit/frontend").iterdir(), ROOT / "docs/language.md"]
    text = "".join(path.read_text(encoding="utf-8") for path in tests if path.is_file())
    missing = [code for code in codes if code not in text]
    print(f"{len(codes)} codes, without a test: {', '.join(missing) or 'none'}")
    return 1 if missing or not codes else 0


sys.exit(main())
