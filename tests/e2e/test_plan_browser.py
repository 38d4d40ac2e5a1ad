"""The page of zmc plan --html in headless Chromium: the numbers in the DOM are the plan's.  Skipped where no browser is installed."""
import html.parser
import json
import os
import shutil
import sys
import time

from zmtest import *

BROWSER = next((b for b in map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")) if b), None)
if not BROWSER:
    print("skipped: the page in a browser: none of chromium, chromium-browser, google-chrome is installed")
    sys.exit(77)

STATES = ("peak_live", "arena", "lower_bound", "states", "closed_form", "padding")
VOID = {"meta", "link", "br", "input"}


class Element:
    def __init__(self, tag, attrs, parent):
        self.tag, self.attrs, self.parent, self.children, self.words = tag, attrs, parent, [], []

    def all(self):
        for c in self.children:
            yield c
            yield from c.all()

    def text(self):
        return "".join(self.words) + "".join(c.text() for c in self.children)

    def bytes(self):
        return [int(float(e.attrs["data-bytes"])) for e in (self, *self.all()) if "data-bytes" in e.attrs]

    def rows(self):
        body = next(e for e in self.all() if e.tag == "tbody")
        return [e for e in body.children if e.tag == "tr"]


class Dom(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.root = self.at = Element("", {}, None)
        self.feed(text)
        self.close()
        self.id = {e.attrs["id"]: e for e in self.root.all() if "id" in e.attrs}

    def handle_starttag(self, tag, attrs):
        e = Element(tag, dict(attrs), self.at)
        self.at.children.append(e)
        if tag not in VOID:
            self.at = e

    def handle_endtag(self, tag):
        while self.at.tag != tag:
            self.at = self.at.parent
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.words.append(data)


def load(page, link=""):
    out, _ = run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={path('profile')}",
                  "--window-size=1200,900", "--virtual-time-budget=20000", "--dump-dom", "file://" + page + link])
    dom = Dom(out)
    same(next(e for e in dom.root.all() if e.tag == "html").attrs.get("data-drawn"), "all", "what is drawn and all")
    return dom


def make(name, args=(), model=GPT2):
    out = path(name)
    run([ZMC, "plan", model, *defines(SMALL), *args, "--html", out])
    return out, json.loads(run([ZMC, "plan", model, *defines(SMALL), *args, "--json"])[0])


def acting(page, script):
    """A copy of the page that does something once it is drawn."""
    text = read(page).decode()
    return write("acting.html", text.replace("</body>", f"<script>{script}</script></body>").encode())


def live(plan, op):
    """Bytes at op `op` of the peak's function, without and with alignment; number of buffers."""
    base = next(f["from"] for f in plan["funcs"] if f["name"] == plan["peak"]["func"])
    now = [b for b in plan["buffers"] if not b["func"] or b["func"] == plan["peak"]["func"] and b["from"] <= base + op <= b["to"]]
    return sum(b["bytes"] for b in now), sum(-(-b["bytes"] // 64) * 64 for b in now), len(now)


def test_numbers():
    page, plan = make("numbers.html", ["--recompute", "layer"])
    dom, rank = load(page), plan["per_rank"][0]
    for key in STATES + tuple(c for c in ("params", "optimizer", "grads", "activations") if rank[c]):
        same(dom.id["sum-" + key].bytes(), [rank[key]], f"{key} of the page and of the plan")
    contains(dom.id["sum-plan_step"].text(), rank["plan_step"])
    same(dom.id["timeline"].attrs["data-peak-bytes"], str(rank["peak_live"]), "peak of the timeline and of the plan")
    same(sum(r.bytes()[0] for r in dom.id["layers"].rows()), rank["peak_live"], "sum of the layers and peak live")
    exact, _, n = live(plan, plan["peak"]["op"])
    same([dom.id["peak-note"].attrs["data-count"], dom.id["peak-note"].attrs["data-bytes"]], [str(n), str(exact)], "buffers at the peak")
    rows = [r.bytes()[0] for r in dom.id["peak"].rows()]
    same(rows, sorted(rows, reverse=True), "rows and rows by size")
    same([len(rows), sum(rows)], [n, exact], "rows and buffers at the peak")
    same([r.bytes()[0] for r in dom.id["recompute"].rows()], [v["saved"] for v in plan["recompute"]["values"]], "what lines save")
    assert "hidden" not in dom.id["recompute-section"].attrs
    assert "hidden" not in dom.id["comm-none"].attrs and "hidden" in dom.id["comm"].attrs
    same(dom.id["comm-none"].text(), "none: one rank", "communication")
    c = dom.id["arena"].attrs
    same(int(c["data-drawn"]) + int(c["data-small"]), len(plan["buffers"]), "buffers of the map and of the plan")


def test_communication_of_ranks():
    """Tables of collectives and buckets, and gathered bytes of the timeline, are the plan's."""
    page, plan = make("comm.html", ["--ranks", 3, "--zero", 3, "--accumulate", 2])
    dom = load(page)
    contains(dom.id["settings"].text(), "3 ranks, zero 3")
    assert "hidden" in dom.id["comm-none"].attrs and "hidden" not in dom.id["comm"].attrs
    cells = [[c.text() for c in r.children[:4]] + r.bytes() for r in dom.id["comm"].rows()]
    same(cells, [[c["op"], c["axis"], c["what"], f"{c['count']:,}", c["bytes"]] for c in plan["comm"]], "collectives")
    buckets = dom.id["comm-buckets"]
    foot = next(e for e in buckets.all() if e.tag == "tfoot")
    same(foot.bytes(), [sum(b["bytes"] for b in plan["comm_buckets"])], "bytes of all buckets")
    contains(buckets.text(), *(f"{b['gathers']} \u00d7 {b['gather_bytes']} B" for b in plan["comm_buckets"]))
    same(dom.id["sum-gathered"].bytes(), [plan["per_rank"][0]["gathered"]], "gathered")
    assert any(r.children[0].text() == "gathered" and r.bytes()[0] == plan["per_rank"][0]["gathered"] for r in dom.id["layers"].rows())


def test_ranks_and_stages():
    """The comparison has a row for each plan, a line for each stage, and marks the answer."""
    args = ["--ranks", "1..8", "--zero", "all"]
    sizes = [r["arena"] for r in json.loads(run([ZMC, "plan", GPT2, *defines(SMALL), *args, "--json"])[0])["plans"]]
    page, sweep = make("sweep.html", [*args, "--memory", sorted(sizes)[len(sizes) // 2]])
    dom = load(page)
    assert "hidden" not in dom.id["sweep-section"].attrs
    rows = dom.id["sweep"].rows()
    same([[int(c.text()) for c in r.children[:2]] for r in rows], [[p["ranks"], p["zero"]] for p in sweep["plans"]], "ranks and stages")
    same([r.bytes() for r in rows], [[p[k] for k in ("states", "activations", "gathered", "arena", "comm_bytes")] for p in sweep["plans"]], "bytes of the table")
    same([r.children[-1].text().startswith("yes") for r in rows], [p["fits"] for p in sweep["plans"]], "what fits")
    marked = [[int(c.text()) for c in r.children[:2]] for r in rows if r.attrs.get("class") == "answer"]
    same(marked, [[sweep["answer"]["ranks"], sweep["answer"]["zero"]]], "the row that is marked")
    same([e.attrs["data-zero"] for e in dom.id["sweep-chart"].all() if e.tag == "polyline"], ["0", "1", "2", "3"], "lines of the picture")
    contains(dom.id["sweep-answer"].text(), f"{sweep['answer']['ranks']} rank", f"zero {sweep['answer']['zero']}")
    assert "hidden" in load(make("one.html")[0]).id["sweep-section"].attrs


def test_an_op_by_link_and_by_keys():
    page, plan = make("ops.html")
    last = next(f["ops"] for f in plan["funcs"] if f["name"] == plan["peak"]["func"])
    for op in (0, 7, last):
        same(load(page, f"#op={op}").id["at-op"].bytes(), [live(plan, op)[1]], f"bytes at op {op}")
    keys = "for (const key of ['Home', 'ArrowRight', 'ArrowRight']) document.getElementById('timeline').dispatchEvent(new KeyboardEvent('keydown', {key}));"
    dom = load(acting(page, keys))
    same(dom.id["at-op"].bytes(), [live(plan, 2)[1]], "bytes at op 2")
    contains(dom.id["at-op"].text(), "op 2: " + plan["peak"]["ops"][2]["op"], plan["peak"]["ops"][2]["loc"])
    same(dom.id["timeline"].attrs["aria-valuenow"], "2", "op that is announced")


def test_sorting_and_the_map_by_keys():
    page, _ = make("sort.html")
    dom = load(acting(page, "document.querySelectorAll('#peak th button')[3].click(); document.querySelectorAll('#peak th button')[3].click();"
                            "document.getElementById('arena').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowDown'}));"))
    offsets = [int(r.children[3].text().replace(",", "")) for r in dom.id["peak"].rows()]
    same(offsets, sorted(offsets), "offsets and offsets in order")
    heads = [e.attrs["aria-sort"] for e in dom.id["peak"].all() if e.tag == "th" and "aria-sort" in e.attrs]
    same(heads, ["none", "none", "none", "ascending", "none", "none"], "aria-sort")
    contains(dom.id["at-buffer"].text(), " at 0, always")


def test_names_are_text():
    folder = path("<i>\"'&amp;<")
    os.makedirs(folder)
    model = os.path.join(folder, "script><b>.zm")
    shutil.copy(GPT2, model)
    page, plan = make("names.html", model=model)
    dom = load(page)
    assert not any(e.tag in ("b", "i") for e in dom.root.all())
    contains(dom.id["peak"].text(), model + ":")
    same(dom.id["sum-arena"].bytes(), [plan["per_rank"][0]["arena"]], "arena")


def test_a_hundred_thousand_buffers():
    page, plan = make("many.html")
    temps = [b for b in plan["buffers"] if b["func"] == plan["peak"]["func"]]
    plan["buffers"] += [{**temps[i % len(temps)], "name": f"copy.{i}"} for i in range(100000 - len(plan["buffers"]))]
    head, rest = read(page).decode().split('id="plan">', 1)
    many = write("many2.html", (head + 'id="plan">' + json.dumps(plan).replace("<", "\\u003c") + rest[rest.index("</script>"):]).encode())
    start = time.monotonic()
    dom = load(many)
    took = time.monotonic() - start
    exact, aligned, n = live(plan, plan["peak"]["op"])
    assert n > 10000
    rows = dom.id["peak"].rows()
    assert len(rows) < n and sum(1 for _ in dom.root.all()) < 5000
    foot = next(e for e in dom.id["peak"].all() if e.tag == "tfoot")
    same(sum(r.bytes()[0] for r in rows) + foot.bytes()[0], exact, "rows shown, the sum of the others, and all")
    contains(foot.text(), f"{n - len(rows):,} more, together")
    assert "hidden" not in dom.id["more"].attrs
    same(int(dom.id["timeline"].attrs["data-peak-bytes"]), aligned, "peak of the timeline")
    c = dom.id["arena"].attrs
    same(int(c["data-drawn"]) + int(c["data-small"]), 100000, "buffers of the map")
    contains(dom.id["arena-note"].text(), "smaller than a pixel")
    assert took < 60, f"{took:.0f} s"


main()
