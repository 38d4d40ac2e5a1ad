"""Fenced blocks of a Markdown page: [(info, text)], for the tests of pages."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]


def blocks(page):
    text = (ROOT / "docs" / page).read_text()
    return [(m[1].strip(), m[2]) for m in re.finditer(r"^```([^\n`]*)\n(.*?)^```$", text, re.M | re.S)]
