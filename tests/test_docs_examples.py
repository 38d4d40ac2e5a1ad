#!/usr/bin/env python3
"""Every example of docs/language.md is compiled.

    ```zm                 a whole file that compiles
    ```zm body            statements of the model in WRAP that compile
    ```zm error           a file that does not; the ```text block after it is exactly what is printed
    ```zm body error=CODE statements whose only error has this code
Also: the table of built-in functions is frontend/builtins.def.  With --fix the table is written.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(os.environ.get("ZMC_ROOT", pathlib.Path(__file__).resolve().parent.parent))
TOOL = pathlib.Path(os.environ.get("ZMC_BUILD", ROOT / "build")) / "test_frontend_show"
PAGE = ROOT / "docs" / "language.md"
WRAP = ("dim B = 2, T = 4, C = 6, V = 11\n"
        "model example(x: [B, T, C], tokens: int[B, T], targets: int[B, T]) {{\n"
        "{}\n"
        "  param unit: [C] = ones\n"
        "  loss mse(x * unit, 0)\n"
        "}}\n")


def blocks(text):
    """(info, body, line) of each fenced block."""
    out, info, start = [], None, 0
    for at, line in enumerate(text.splitlines(), 1):
        if not line.startswith("```"):
            continue
        if info is None:
            info, start = line[3:].strip(), at
        else:
            out.append((info, "\n".join(text.splitlines()[start:at - 1]) + "\n", start))
            info = None
    return out


def compile_example(source):
    with tempfile.TemporaryDirectory() as tmp:
        path = pathlib.Path(tmp) / "example.zm"
        path.write_text(source, encoding="utf-8")
        run = subprocess.run([TOOL, path], capture_output=True, text=True, timeout=60)
    return run.returncode, run.stderr


def check(info, body, after):
    """What is wrong with an example, or None."""
    words = info.split()
    status, stderr = compile_example(WRAP.format(body) if "body" in words else body)
    codes = re.findall(r"error\[(\w+)\]", stderr)
    want = [w[6:] for w in words if w.startswith("error=")]
    if want:
        return None if codes == want and status == 1 else f"expected {want}:\n{stderr}"
    if "error" not in words:
        return None if status == 0 else stderr
    if status != 1 or not after or after[0] != "text":
        return f"status {status}, or no text block follows:\n{stderr}"
    return None if after[1] == stderr else f"prints\n{stderr}\nthe page says\n{after[1]}"


def builtin_table():
    text = (ROOT / "frontend" / "builtins.def").read_text(encoding="utf-8")
    rows = re.findall(r'^BUILTIN\((\w+), "(.*?)", "(.*?)"\)$', text, re.M)
    assert len(rows) == text.count("\nBUILTIN(")
    return "".join(f"| `{name}({params})` | {doc} |\n" for name, params, doc in rows)


def split_table(page):
    head, rest = page.split("<!-- builtins: this table is frontend/builtins.def -->\n| function | value |\n|---|---|\n")
    table, tail = rest.split("<!-- /builtins -->")
    mark = "<!-- builtins: this table is frontend/builtins.def -->\n| function | value |\n|---|---|\n"
    return head + mark, table, "<!-- /builtins -->" + tail


def main():
    page = PAGE.read_text(encoding="utf-8")
    head, table, tail = split_table(page)
    if "--fix" in sys.argv:
        PAGE.write_text(head + builtin_table() + tail, encoding="utf-8")
        return 0
    bad = 0
    if table != builtin_table():
        print("the table of built-in functions is stale: run tests/test_docs_examples.py --fix")
        bad += 1
    found = blocks(page)
    n = 0
    for i, (info, body, line) in enumerate(found):
        if not info.startswith("zm"):
            continue
        n += 1
        why = check(info, body, found[i + 1] if i + 1 < len(found) else None)
        if why:
            print(f"{PAGE}:{line}: {why}")
            bad += 1
    print(f"{n} examples, {bad} bad")
    return 1 if bad or n < 20 else 0


sys.exit(main())
