"""zmc plan A --vs B: what changes from one plan to another, by category, line and buffer; every sum is the plans' own."""
import json
import os
import re
import subprocess

from zmtest import *

TEXT = read(GPT2).decode()


def model(name, *edits):
    text = TEXT
    for old, new in edits:
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    return write(name, text.encode())


def plan(m, *args):
    return json.loads(run([ZMC, "plan", m, *defines(SMALL), *args, "--json"])[0])


def vs(a, b, *args):
    return json.loads(run([ZMC, "plan", a, "--vs", b, *defines(SMALL), *args, "--json"])[0])


def at_peak(p):
    """Buffers at the peak."""
    at = next(f["from"] for f in p["funcs"] if f["name"] == p["peak"]["func"]) + p["peak"]["op"]
    return [b for b in p["buffers"] if not b["func"] or b["func"] == p["peak"]["func"] and b["from"] <= at <= b["to"]]


def total(p, key):
    if key == "comm_bytes":
        return sum(c["bytes"] for c in p["comm"])
    return p[{"parameters": "params"}.get(key, key)] if key in ("parameters", "ranks", "zero") else p["per_rank"][0][key]


def check_sums(a, b, *args):
    return check_comparison(plan(a, *args), plan(b, *args), vs(a, b, *args))


def check_comparison(pa, pb, d):
    for key, t in d["totals"].items():
        same([t["a"], t["b"]], [total(pa, key), total(pb, key)], key)
        same(t["change"], t["b"] - t["a"], "change and difference")
    change = sum(x["bytes"] for x in at_peak(pb)) - sum(x["bytes"] for x in at_peak(pa))
    same(sum(l["at_peak"]["change"] for l in d["lines"]), change, "changes of the lines at the peak and change of the peak's buffers")
    groups = d["only_a"] + d["only_b"] + d["changed"]
    same(sum(g["at_peak"]["change"] for g in groups), change, "changes of the buffers at the peak and change of the peak's buffers")
    every = sum(x["bytes"] for x in pb["buffers"]) - sum(x["bytes"] for x in pa["buffers"])
    same(sum(g["bytes"]["change"] for g in groups), every, "changes of the buffers and change of their sum")
    for g in d["only_a"]:
        assert g["count"]["a"] and not g["count"]["b"], g
    for g in d["only_b"]:
        assert g["count"]["b"] and not g["count"]["a"], g
    return d


NARROW = ("conv1d(x, 4 * C)", "conv1d(x, 3 * C)")
SHIFT = ("const dropout", "# a line more\nconst dropout")
EXTRA = ("  let x = h[layers]: layer(e)", "  param scale: [width] = ones\n  let f = tanh(e * scale)\n  let x = h[layers]: layer(f)")


def number(text, part):
    return next(i for i, l in enumerate(text.split("\n"), 1) if part in l)


def test_sums_are_those_of_the_plans():
    a = model("a.zm")
    check_sums(a, model("narrow.zm", NARROW))
    check_sums(a, model("extra.zm", SHIFT, EXTRA), "--accumulate", 2)
    check_sums(model("extra2.zm", EXTRA), a, "--precision", "bf16", "--recompute", "layer")
    for zero in (1, 3):
        check_sums(a, model("narrow-ranks.zm", NARROW), "--ranks", 3, "--zero", zero, "--precision", "bf16", "--accumulate", 2)


def test_buffers_only_in_one():
    a, b = model("a.zm"), model("extra.zm", SHIFT, EXTRA)
    at = number(read(b).decode(), "tanh(e * scale)")
    for d, one, side in ((vs(a, b), "only_b", "b"), (vs(b, a), "only_a", "a")):
        names = {g["name"]: g for g in d[one]}
        same(names["scale"]["line"][side], f"{b}:{at - 1}", "line of the parameter")
        same(names["scale"]["bytes"][side], 4 * SMALL["width"], "bytes of the parameter")
        assert {"scale", "exp_avg.scale", "exp_avg_sq.scale"} <= names.keys(), names.keys()
        assert any(name.endswith(".tanh") for name in names), names
    assert not any(g["name"].endswith("weight") for k in ("only_a", "only_b") for g in vs(a, b)[k])


def test_lines_that_moved_are_the_same_lines():
    a, b = model("a.zm"), model("shift.zm", SHIFT)
    d = vs(a, b)
    assert d["equal"] and not d["lines"] and not d["changed"], d
    d = vs(a, model("narrow2.zm", SHIFT, NARROW))
    assert d["lines"]
    for l in d["lines"]:
        if l["line"]["a"]:
            n = [int(l["line"][s].rsplit(":", 1)[1]) for s in "ab"]
            same(n[1], n[0] + (n[0] > 2), "line in B and the line in A, moved by one")


def test_text():
    a, b = model("a.zm"), model("extra.zm", SHIFT, EXTRA)
    out, _ = run([ZMC, "plan", a, "--vs", b, *defines(SMALL)])
    contains(out, f"A: {a}\nB: {b}\n", "at the peak, by line", "buffers only in B", "buffers that change")
    assert "buffers only in A" not in out
    arena = [plan(m)["per_rank"][0]["arena"] for m in (a, b)]
    assert re.search(rf"^  arena +{arena[0]} +{arena[1]} ", out, re.M), out


def test_nothing_differs():
    a = model("a.zm")
    for b in (a, model("copy.zm")):
        out, _ = run([ZMC, "plan", a, "--vs", b, *defines(SMALL)])
        contains(out, "nothing differs")
        d = vs(a, b)
        assert d["equal"] and d["moved"] == 0
        same([d[k] for k in ("lines", "only_a", "only_b", "changed")], [[], [], [], []], "differences and none")


def last_dump(m, name):
    folder = path(name)
    os.makedirs(folder)
    run([ZMC, m, *defines(SMALL), "--dump-dir", folder, "--emit", "ir", "-o", path(name + ".zir")])
    return os.path.join(folder, sorted(f for f in os.listdir(folder) if f.endswith(".zir"))[-1])


def test_dumps():
    a = model("a.zm")
    zir = last_dump(a, "dump-a")
    for args in ([a, "--vs", zir, *defines(SMALL)], [zir, "--vs", a, *defines(SMALL)], [zir, "--vs", zir]):
        contains(run([ZMC, "plan", *args])[0], "nothing differs")
    narrow = model("narrow.zm", NARROW)
    d = json.loads(run([ZMC, "plan", zir, "--vs", last_dump(narrow, "dump-b"), "--json"])[0])
    same(d["totals"], vs(a, narrow)["totals"], "totals of dumps and of models")
    _, err = run([ZMC, "plan", zir, "--vs", zir, *defines(SMALL)], code=1)
    contains(err, "no effect")
    _, err = run([ZMC, "plan", a, "--vs", os.path.join(path("dump-a"), sorted(os.listdir(path("dump-a")))[0]), *defines(SMALL)], code=1)
    contains(err, "has no memory plan")


def test_buffers_that_only_moved():
    zir = last_dump(model("a.zm"), "dump-moved")
    text = read(zir).decode()
    arena = max(int(m[1]) + int(m[2]) for m in re.finditer(r"@arena\+(\d+) bytes=(\d+)", text))
    moved = 0
    for m in list(re.finditer(r"@arena\+(\d+) (bytes=\d+ live=\S+ cat=activations)", text))[::5]:
        at = (arena - int(re.search(r"bytes=(\d+)", m[2])[1])) // 64 * 64
        edited = write("moved.zir", (text[:m.start(1)] + str(at) + text[m.end(1):]).encode())
        done = subprocess.run([ZMC, "plan", zir, "--vs", edited], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        if done.returncode == 0 and at != int(m[1]):
            contains(done.stdout.decode(), "nothing differs")
            moved += "\n1 buffers lie at other offsets" in done.stdout.decode()  # not where the value shares another's buffer
    assert moved, "no buffer could be moved"


def test_refused():
    a, b = model("a.zm"), model("narrow.zm", NARROW)
    bad = write("bad.zm", TEXT.replace("gelu_tanh", "no_such_function").encode())
    for args, parts in (
            ([a, "--vs", path("missing.zm")], ("cannot read " + path("missing.zm"),)),
            ([a, "--vs"], ("'--vs' needs a value",)),
            ([a, "--vs", bad], (bad, "no_such_function")),
            ([bad, "--vs", a], (bad, "no_such_function")),
            ([a, "--vs", b, "--csv"], ("--vs with --csv", "--json")),
            ([a, "--vs", b, "--html", path("x")], ("--vs with --html", "--json")),
            ([a, "--vs", b, "--dump-dir", path("x")], ("--vs with --dump-dir",)),
            ([a, "--vs", b, "-o", b], ("overwrite the input",))):
        out, err = run([ZMC, "plan", *args], code=1)
        contains(err, "error[", *parts)
        same(out, "", "standard output and nothing")
    _, err = run([ZMC, a, "--vs", b], code=1)
    contains(err, "--vs is an option of zmc plan", "zmc plan " + a)
    need = [plan(m)["per_rank"][0]["arena"] for m in (a, b)]
    assert need[1] < need[0]
    run([ZMC, "plan", b, "--vs", a, *defines(SMALL), "--memory", need[1]], code=3)
    run([ZMC, "plan", b, "--vs", a, *defines(SMALL), "--memory", need[0]])


def dump(name, *args):
    folder = path(name)
    run([ZMC, GPT2, *defines(SMALL), *args, "--dump-dir", folder])
    return os.path.join(folder, max(f for f in os.listdir(folder) if f.endswith("-memplan.zir")))


def test_ranks_and_stages():
    """Dumps of different stages: what a rank sends, by kind, is that of the plans."""
    for a, b in (((4, 1), (4, 3)), ((2, 2), (8, 2)), ((1, 0), (4, 0))):
        files = [dump(f"dump-{n}-{z}", "--ranks", n, "--zero", z) for n, z in (a, b)]
        pa, pb = (json.loads(run([ZMC, "plan", f, "--json"])[0]) for f in files)
        d = json.loads(run([ZMC, "plan", files[0], "--vs", files[1], "--json"])[0])
        same([[t["a"], t["b"]] for t in (d["totals"][k] for k in ("ranks", "zero"))], [list(x) for x in zip(a, b)], "ranks and stages")
        same([d["totals"]["comm_bytes"][k] for k in "ab"], [total(pa, "comm_bytes"), total(pb, "comm_bytes")], "bytes sent")
        want = {}
        for side, p in (("a", pa), ("b", pb)):
            for c in p["comm"]:
                want.setdefault((c["op"], c["axis"], c["what"]), {})[side] = (c["count"], c["bytes"])
        want = {k: v for k, v in want.items() if v.get("a") != v.get("b")}
        got = {(c["op"], c["axis"], c["what"]): {s: (c["count"][s], c["bytes"][s]) for s in "ab" if c["count"][s]} for c in d["comm"]}
        same(got, want, f"what changes between {a} and {b}")
        assert want and not d["equal"]
        check_comparison(pa, pb, d)
        out, _ = run([ZMC, "plan", files[0], "--vs", files[1]])
        contains(out, "communication: number in a step, bytes that a rank sends", *(f"{op} {what} (data)" for op, _, what in want))


def test_a_variable_in_a_bucket_of_many_ranks():
    """It is charged its share of the rank's part, to an element."""
    for zero, parts in ((2, ("exp_avg.", "exp_avg_sq.")), (3, ("", "exp_avg.", "exp_avg_sq."))):
        d = vs(model("a.zm"), model("extra.zm", SHIFT, EXTRA), "--ranks", 3, "--zero", zero)
        by_name = {g["name"]: g["bytes"]["b"] for g in d["only_b"]}
        for part in ("", "exp_avg.", "exp_avg_sq."):
            whole = 4 * SMALL["width"]
            if part in parts:
                assert abs(by_name[part + "scale"] - whole / 3) < 4, (part, zero, by_name)
            else:
                same(by_name[part + "scale"], whole, "bytes of a parameter that each rank holds whole")


main()
