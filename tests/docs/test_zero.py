#!/usr/bin/env python3
"""docs/zero.md: its dumps, of two ranks."""
import sys

from doc_dumps import check

if __name__ == "__main__":
    sys.exit(check("zero.md", 5, dump_options=["--ranks", "2"]))
