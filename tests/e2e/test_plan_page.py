"""zmc plan --html: one page that needs nothing else, whose data is what --json prints, whatever the names in it."""
import html.parser
import json
import os
import re
import shutil

from zmtest import *

PLAN = re.compile(r'<script type="application/json" id="plan">(.*?)</script>', re.S)
SECTIONS = ("h-summary", "h-timeline", "h-peak", "h-arena", "h-recompute", "h-comm", "h-sweep")


class Outline(html.parser.HTMLParser):
    """Which elements a page has; every one that must be closed is."""
    VOID = {"meta", "link", "input", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.refers = [], [], [], []
        self.feed(text)
        self.close()
        same(self.open, [], "open elements at the end and none")

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for k, v in attrs:
            if k == "id":
                self.ids.append(v)
            if k in ("src", "href", "action", "data", "srcset"):
                self.refers.append(v)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        same(self.open.pop(), tag, "element opened and closed")


def page_and_json(model, args):
    out = path("page.html")
    printed, _ = run([ZMC, "plan", model, *args, "--html", out])
    same(printed, "", "standard output and nothing")
    text, _ = run([ZMC, "plan", model, *args, "--json"])
    return read(out).decode(), text


def check_data(page, printed):
    found = PLAN.findall(page)
    same(len(found), 1, "number of plans in the page and one")
    assert "<" not in found[0]
    same(found[0].replace("\\u003c", "<"), printed, "the page's data and --json")
    same(json.loads(found[0]), json.loads(printed), "the page's data and --json")


def test_many_ranks():
    """The page of many plans holds them all, and the plan that they lead to."""
    args = [*defines(SMALL), "--ranks", "1..4", "--zero", "all", "--memory", "16MiB"]
    page, printed = page_and_json(GPT2, args)
    Outline(page)
    data, sweep = json.loads(PLAN.findall(page)[0]), json.loads(printed)
    same(data["sweep"], sweep, "the page's comparison and --json")
    same({k: data[k] for k in ("ranks", "zero")}, sweep["answer"], "the plan of the page and the answer")
    same(data["per_rank"][0]["arena"], next(r["arena"] for r in sweep["plans"] if (r["ranks"], r["zero"]) == (data["ranks"], data["zero"])), "arena")


def test_structure_and_data():
    for args in ([], ["--recompute", "layer"], ["--accumulate", 2, "--precision", "bf16"]):
        page, printed = page_and_json(GPT2, [*defines(SMALL), *args])
        check_data(page, printed)
        o = Outline(page)
        same(o.refers, ["data:,"], "what the page refers to and its empty icon")
        for word in ("http:", "//cdn", "@import", "url(", "fetch(", "XMLHttpRequest", "@PLAN@", "@CSS@", "@JS@"):
            assert word not in page.replace("http://www.w3.org/2000/svg", ""), word
        for name in (*SECTIONS, "summary", "timeline", "peak", "arena", "comm", "recompute"):
            same(o.ids.count(name), 1, f"number of elements {name} and one")


def test_json_says_what_runs_when():
    p = json.loads(run([ZMC, "plan", GPT2, *defines(SMALL), "--json"])[0])
    peak, funcs = p["peak"], {f["name"]: f for f in p["funcs"]}
    same(p["model"], "gpt2", "name of the model")
    same(len(peak["ops"]), funcs[peak["func"]]["ops"], "ops listed and ops of the function")
    at = funcs[peak["func"]]["from"] + peak["op"]
    live = [b for b in p["buffers"] if not b["func"] or b["func"] == peak["func"] and b["from"] <= at <= b["to"]]
    same(sum(-(-b["bytes"] // 64) * 64 for b in live), p["per_rank"][0]["peak_live"], "bytes of the buffers at the peak and peak live")
    for b in p["buffers"]:
        if b["func"]:
            f = funcs[b["func"]]
            assert f["from"] <= b["from"] <= b["to"] <= f["from"] + f["ops"], (b, f)
    assert any(o["op"] == "matmul" and "gpt2.zm" in o["loc"] for o in peak["ops"])


def test_names_cannot_break_the_page():
    folder = path("<!--<script>\"'&amp;\\<")
    os.makedirs(folder)
    model = os.path.join(folder, "script><b>.zm")  # the path reads ...</script><b>.zm
    shutil.copy(GPT2, model)
    page, printed = page_and_json(model, defines(SMALL))
    contains(printed, "</script><b>.zm:")
    check_data(page, printed)
    o = Outline(page)
    assert "b" not in o.tags
    same(o.tags.count("script"), 2, "number of scripts and two")


def test_standard_output():
    page, _ = run([ZMC, "plan", GPT2, *defines(SMALL), "--html", "-"])
    run([ZMC, "plan", GPT2, *defines(SMALL), "--html", path("same.html")])
    same(page.encode(), read(path("same.html")), "page printed and page written")


def test_refused():
    model = write("own.zm", read(GPT2))
    before = read(model)
    for args, parts in (
            (["plan", model, "--html", path("x"), "--json"], ("--html", "--json", "choose one")),
            (["plan", model, "--html", path("x"), "--csv"], ("--html", "--csv", "choose one")),
            (["plan", model, "--html", path("x"), "-o", path("y")], ("--html", "-o", "choose one")),
            (["plan", model, "--html", model], ("overwrite the input",)),
            (["plan", model, "--html"], ("'--html' needs a value",)),
            (["plan", model, *defines(SMALL), "--html", "/does/not/exist/x"], ("cannot write /does/not/exist/x",)),
            ([model, "--html", path("x"), "-o", path("y")], ("--html is an option of zmc plan", "zmc plan"))):
        _, err = run([ZMC, *args], code=1)
        contains(err, "error[", *parts)
    same(read(model), before, "the model before and after")
    assert not os.path.exists(path("x"))
    run([ZMC, "plan", model, *defines(SMALL), "--memory", "1KiB", "--html", path("x")], code=3)
    assert not os.path.exists(path("x"))


main()
