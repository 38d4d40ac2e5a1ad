#!/usr/bin/env python3
"""docs/precision.md: its dumps, and its `text` block, which is in the plan."""
import sys

from doc_dumps import check

if __name__ == "__main__":
    sys.exit(check("precision.md", 6, plan_options=["--precision", "bf16"]))
