"""Pages that show what a pass makes of the page's model: each `dump PASS OPTIONS` block is in what the compiler prints after that pass,
line by line, with any lines where the block has `...`, values numbered in any way."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from doc_blocks import blocks

ZMC = pathlib.Path(os.environ.get("ZMC_BUILD", "build")).resolve() / "zmc"


def pattern(text):
    """The block as a regular expression: %7 is any number, the same one at each place."""
    seen, out = set(), ""
    for line in text.splitlines():
        if line == "...":
            out += r"(?:.*\n)*?"
            continue
        for part in re.split(r"(%\d+\b)", line):
            name = "v" + part[1:]
            if not re.fullmatch(r"%\d+", part):
                out += re.escape(part)
            elif name in seen:
                out += f"%(?P={name})\\b"
            else:
                seen.add(name)
                out += rf"%(?P<{name}>\d+)\b"
        out += r"\n"
    return out


def compiler(*args):
    done = subprocess.run([ZMC, *args], capture_output=True, text=True, timeout=60)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, args))}: {done.stderr}")
    return done.stdout + re.sub(r" !\d+$", "", done.stderr, flags=re.M)


def check(page_name, least, dump_options=(), plan_options=None):
    """Exit status: 0 when at least `least` dumps and, with plan_options, every `text` block are what zmc prints."""
    page = blocks(page_name)
    n_dumps, failures = 0, 0
    with tempfile.TemporaryDirectory() as tmp:
        model = pathlib.Path(tmp) / "line.zm"
        model.write_text(next(text for info, text in page if info == "zm"))
        for info, text in page:
            words = info.split()
            if info == "text" and plan_options is not None:
                ok = text in compiler("plan", model, *plan_options)
            elif words[:1] == ["dump"]:
                n_dumps += 1
                dump = compiler(model, "--emit", "ir", "-o", os.devnull, f"--print-ir-after={words[1]}", *dump_options, *words[2:])
                ok = re.search("^" + pattern(text), dump, re.M) is not None
            else:
                continue
            if not ok:
                failures += 1
                print(f"not what the compiler prints, {info}:\n{text}")
    print(f"{n_dumps} dumps, {failures} failed")
    return failures != 0 or n_dumps < least
