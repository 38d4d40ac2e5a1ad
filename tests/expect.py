#!/usr/bin/env python3
"""expect.py TOOL FILE...: diagnostics are what the file says.

A file holds cases, separated by lines that begin with `# ----`.  In a case
    # flags: -D B=3                         options of the tool
    # expected-error@+1 {{E0203: text}}     an error with this code on the next line, whose message contains the text
    # expected-warning@-2 {{W0215: text}}   a warning two lines up
    # expected-note@+0 {{text}}             a note on this line (with @none: an error, note or help without a place)
    # expected-help {{text}}                a help
Errors and warnings must match exactly, both ways; notes and helps only those that are listed.  A case without an expected
error must compile.  `[[` and `]]` stand for double braces in texts.
"""
import re
import subprocess
import sys
import tempfile

DIRECTIVE = re.compile(r"#\s*expected-(error|warning|note|help)(@(?:[+-]\d+|none))?\s*\{\{(.*?)\}\}")
MESSAGE = re.compile(r"^(?:case\.zm:(\d+):\d+: |[^:]+:\d+:\d+: |zmc: )?(error|warning|note|help)(?:\[(\w+)\])?: (.*)$")


def expectations(lines):
    out = []
    for at, line in enumerate(lines, 1):
        for kind, where, text in DIRECTIVE.findall(line):
            place = None if kind == "help" or where == "@none" else at + int(where[1:] if where else 0)
            code = None
            if kind in ("error", "warning"):
                code, text = text.split(": ", 1)
            out.append((kind, place, code, text.replace("[[", "{").replace("]]", "}")))
    return out


def messages(stderr):
    out = []
    for line in stderr.splitlines():
        m = MESSAGE.match(line)
        if m:
            out.append((m[2], int(m[1]) if m[1] else None, m[3], m[4]))
    return out


def fits(want, got):
    return want[0] == got[0] and want[1] == got[1] and want[2] == got[2] and want[3] in got[3]


def check_case(tool, lines, where):
    with tempfile.TemporaryDirectory() as tmp:
        path = tmp + "/case.zm"
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
        flags = [w for line in lines if line.startswith("# flags:") for w in line[8:].split()]
        run = subprocess.run([tool, *flags, path], capture_output=True, text=True, timeout=60)
    want, got = expectations(lines), messages(run.stderr)
    failures = [f"missing {w}" for w in want if not any(fits(w, g) for g in got)]
    for g in got:
        if g[0] in ("error", "warning") and not any(fits(w, g) for w in want):
            failures.append(f"unexpected {g}")
    fails = any(w[0] == "error" for w in want)
    if run.returncode != (1 if fails else 0):
        failures.append(f"exit code {run.returncode}")
    for f in failures:
        print(f"{where}: {f}")
    if failures:
        print(run.stderr)
    return not failures


def main():
    tool, n, bad = sys.argv[1], 0, 0
    for name in sys.argv[2:]:
        case, start = [], 1
        with open(name, encoding="utf-8") as f:
            lines = f.read().splitlines() + ["# ---- end"]
        for at, line in enumerate(lines, 1):
            if not line.startswith("# ----"):
                case.append(line)
                continue
            if any(l.strip() and not l.startswith("# RUN") for l in case):
                n += 1
                bad += not check_case(tool, case, f"{name}:{start}")
            case, start = [], at + 1
    print(f"{n} cases, {bad} bad")
    sys.exit(1 if bad or not n else 0)


main()
