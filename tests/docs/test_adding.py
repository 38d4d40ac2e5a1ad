#!/usr/bin/env python3
"""docs/adding.md: its additions are applied to a copy of ir/ and passes/, which must build; the page's lit tests must pass with the
copy's zm-opt and fail with one that lacks the additions; the generated tests of ops, rules and random IR must pass with them."""
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from doc_blocks import ROOT, blocks

BUILD = pathlib.Path(os.environ.get("ZMC_BUILD", "build")).resolve()
LLVM_BIN = "/usr/lib/llvm-19/bin"
CFLAGS = ["-std=c11", "-O0", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wmissing-prototypes"]
# Where a line goes in a file that exists: before the first line that starts with this.
BEFORE = {"ir/ops.def": 'POINT(SQUARED_ERROR', "passes/canon_rules.c": "    RULE(neg_of_neg", "passes/passes.def": "PASS(canon"}
TESTS = ["gradcheck", "expand", "rules", "roundtrip"]


def apply(page, root):
    for info, text in page:
        if not info.startswith("c ") or info == "c plugin":
            continue
        path = root / info[2:]
        if path.exists() and text in path.read_text():
            continue  # a tree in which the reader tried it
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            at = next(i for i, line in enumerate(lines) if line.startswith(BEFORE[info[2:]]))
            path.write_text("".join(lines[:at] + [text] + lines[at:]))
        else:
            path.write_text(text)


def compile_all(root, sources):
    def one(source):
        subprocess.run(["cc", *CFLAGS, "-I.", "-c", source, "-o", f"{source}.o"], cwd=root, check=True)
        return f"{source}.o"

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, sources))


def sources_in(root, *patterns):
    return [str(p.relative_to(root)) for pattern in patterns for p in sorted(root.glob(pattern))]


def build(root):
    shutil.copy(BUILD / "plan_page.c", root / "passes" / "memory")  # made by the build
    shared = compile_all(root, sources_in(root, "ir/*.c", "ir/base/*.c", "ir/eval/*.c", "passes/*.c", "passes/*/*.c"))
    programs = {"zm-opt": compile_all(root, sources_in(root, "tools/zm-opt.c", "tools/zm-opt/*.c"))}
    for name in TESTS:
        programs[name] = compile_all(root, [f"tests/property/{name}.c"])
    for name, objects in programs.items():
        subprocess.run(["cc", *objects, *shared, "-lm", "-o", f"bin/{name}"], cwd=root, check=True)


def lit_passes(text, folder, bin_folder):
    """Runs the RUN line of a lit test as the shell does."""
    test = folder / "test.zir"
    test.write_text(text)
    command = text.split("// RUN:")[1].splitlines()[0].replace("%s", str(test))
    path = os.pathsep.join([str(bin_folder), LLVM_BIN, os.environ["PATH"]])
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    return done.returncode == 0, done.stderr


def plugin_problem(page, root, text):
    """The build's own zm-opt, with the pass as a plugin, must pass the pass's lit test."""
    plain = next(code for info, code in page if info == "c plugin")
    (root / "plugin.c").write_text('#include "passes/pass.h"\nStatus pass_swap(PassCtx *cx, bool *changed);\n' + plain)
    subprocess.run(["cc", "-std=c11", "-shared", "-fPIC", "-I.", "plugin.c", "-o", "plugin.so"], cwd=root, check=True)
    passes, why = lit_passes(text.replace("zm-opt", f"zm-opt --load={root / 'plugin.so'}", 1), root, BUILD)
    return None if passes else f"with the plugin: {why}"


def main():
    page = blocks("adding.md")
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for part in ("ir", "passes", "tools/zm-opt", "tests/property"):
            shutil.copytree(ROOT / part, root / part)
        for name in ("zm-opt.c", "option.h"):
            shutil.copy(ROOT / "tools" / name, root / "tools")
        (root / "bin").mkdir()
        apply(page, root)
        build(root)
        lit_tests = [text for info, text in page if info == "zir"]
        for text in lit_tests:
            passes, why = lit_passes(text, root, root / "bin")
            if not passes or lit_passes(text, root, BUILD)[0]:
                failures += 1
                print(f"{text}\n{why or 'passes without the addition'}")
        problem = plugin_problem(page, root, lit_tests[-1])
        if problem:
            failures += 1
            print(problem)
        for name in TESTS:
            done = subprocess.run([root / "bin" / name], capture_output=True, text=True)
            if done.returncode != 0:
                failures += 1
                print(f"{name}: status {done.returncode}\n{done.stdout}{done.stderr}")
    print(f"{len(lit_tests)} lit tests, {len(TESTS)} programs, {failures} failed")
    return failures != 0 or len(lit_tests) != 3


if __name__ == "__main__":
    sys.exit(main())
