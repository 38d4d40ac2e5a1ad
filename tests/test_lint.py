"""What the code promises about its form: layout, layers, sizes, folders.

clang-format (19) agrees with every C file; a layer includes only layers below it; no file is longer than 800 lines; nothing at the top
that the README's map does not name.  clang-tidy takes minutes: tools/lint runs it.
"""
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MAX_LINES = 800

# What each folder may include, besides itself.
LAYERS = {
    "ir/base": [],
    "ir": ["ir/base"],
    "frontend": ["ir/base", "ir"],
    "passes": ["ir/base", "ir"],
    "codegen": ["ir/base", "ir", "passes"],
    "runtime/audit": ["ir/base", "ir", "runtime"],
    "runtime": ["ir/base"],
}
TOP = {"frontend", "ir", "passes", "codegen", "runtime", "tests", "tools", "models", "docs", "CMakeLists.txt", "README.md", "LICENSE"}


def tracked(*patterns):
    out = subprocess.run(["git", "-C", ROOT, "ls-files", *patterns], stdout=subprocess.PIPE, check=True).stdout
    return [f for f in out.decode().split("\n") if f and os.path.exists(os.path.join(ROOT, f))]


def layer_of(path):
    return next((l for l in ("ir/base", *LAYERS) if path.startswith(l + "/")), None)


def check_format(files):
    tool = shutil.which("clang-format-19")
    if not tool:
        print("clang-format-19 is not installed: layout not checked")
        return []
    done = subprocess.run([tool, "--dry-run", "--Werror", *files], cwd=ROOT, stderr=subprocess.PIPE, check=False)
    return sorted({l.split(":")[0] + ": clang-format-19 -i changes it" for l in done.stderr.decode().split("\n") if ": error:" in l})


def check_layers(files):
    bad = []
    for f in files:
        layer = layer_of(f)
        if not layer:
            continue
        with open(os.path.join(ROOT, f), encoding="utf-8") as text:
            for n, line in enumerate(text, 1):
                m = re.match(r'\s*#\s*include "([^"]+)"', line)
                to = layer_of(m.group(1)) if m else None
                if to and to != layer and to not in LAYERS[layer]:
                    bad.append(f"{f}:{n}: {layer} includes {to}")
    return bad


def check_sizes(files):
    bad = []
    for f in files:
        with open(os.path.join(ROOT, f), encoding="utf-8") as text:
            n = sum(1 for _ in text)
        if n > MAX_LINES:
            bad.append(f"{f}: {n} lines, more than {MAX_LINES}")
    return bad


def check_top():
    return [f"{f}: not in the README's map" for f in sorted({t.split("/")[0] for t in tracked()}) if f not in TOP and not f.startswith(".")]


def main():
    if not os.path.isdir(os.path.join(ROOT, ".git")) and not os.path.isfile(os.path.join(ROOT, ".git")):
        print("not a git checkout: the tracked files are not known")
        sys.exit(77)
    c = tracked("*.c", "*.h")
    bad = check_format(c) + check_layers(c) + check_sizes(c + tracked("*.y", "*.l", "*.py")) + check_top()
    print("\n".join(bad))
    sys.exit(1 if bad else 0)


main()
