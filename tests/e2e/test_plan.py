"""What the plan promised is what runs: arena to the byte, process peak, no growth, dumps that can be edited."""
import json
import os
import re
import subprocess
import time

from zmtest import *


def plan(args):
    out, _ = run([ZMC, "plan", GPT2, *defines(SMALL), *args, "--json"])
    return json.loads(out)


def test_arena_equals_plan():
    for extra in ([], ["--accumulate", 2]):
        p = plan(extra)
        m = train(compile_model(extra=extra), 2)
        for step in m:
            same(step["arena_bytes"], p["per_rank"][0]["arena"], "arena of plan and run")


def test_summary_has_a_unit_that_shows_the_arena():
    for d, unit in (({}, "MiB"), ({"vocab": 11, "ctx": 4, "layers": 1, "heads": 1, "width": 4, "T": 4, "B": 1}, "KiB")):
        args = [*defines({**SMALL, "heads": 4, "width": 128, **d}), "-o", path("summary")]
        _, err = run([ZMC, GPT2, *args])
        out, _ = run([ZMC, "plan", GPT2, *args[:-2], "--json"])
        arena = json.loads(out)["per_rank"][0]["arena"]
        contains(err, f"arena {arena / (1 << 20 if unit == 'MiB' else 1 << 10):.1f} {unit} = params ")
        assert "params 0.0" not in err, err


def test_categories_add_up():
    r = plan([])["per_rank"][0]
    parts = ("params", "master", "optimizer", "grads", "activations", "gathered", "workspace", "inputs", "other", "padding")
    same(sum(r[c] for c in parts), r["peak_live"], "sum of categories and peak")
    close(r["gap"], r["arena"] / r["lower_bound"] - 1, 1e-9, "gap")
    close(r["fragmentation"], r["arena"] / r["peak_live"] - 1, 1e-9, "fragmentation")
    assert r["states"] <= r["closed_form"]
    assert r["arena"] >= r["peak_live"]


def test_buffers_do_not_overlap():
    b = plan([])["buffers"]
    for i, x in enumerate(b):
        for y in b[:i]:
            together = x["from"] <= y["to"] and y["from"] <= x["to"]
            meet = x["offset"] < y["offset"] + y["bytes"] and y["offset"] < x["offset"] + x["bytes"]
            assert not (together and meet), (x, y)


def peak_and_growth(exe, args):
    """Peak resident bytes of the process, and resident anonymous bytes soon after the start and at the end."""
    p = subprocess.Popen([exe, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen = []
    while p.poll() is None:
        try:
            with open(f"/proc/{p.pid}/status", encoding="utf-8") as f:
                fields = dict(line.split(":", 1) for line in f)
            seen.append((int(fields["VmHWM"].split()[0]) * 1024, int(fields["RssAnon"].split()[0]) * 1024))
        except (OSError, KeyError):
            break
        time.sleep(0.02)
    assert p.wait() == 0
    return max(s[0] for s in seen), [s[1] for s in seen]


def test_process_peak_and_no_growth():
    d = {"layers": 3, "heads": 4, "width": 128, "ctx": 64, "T": 64, "B": 8, "vocab": 251}
    exe = compile_model(d=d)
    m = train(exe, 1)
    data = tokens()
    peak, anon = peak_and_growth(exe, ["--data", data, "--steps", 60, "--metrics", path("p.jsonl")])
    limit = m[0]["arena_bytes"] + (24 << 20)
    assert peak <= limit, f"peak {peak}, arena {m[0]['arena_bytes']}"
    middle = anon[len(anon) // 2]
    assert anon[-1] <= middle + (64 << 10), f"resident anonymous memory grew from {middle} to {anon[-1]}"


def dump(name, args=()):
    d = path(name)
    os.makedirs(d)
    run([ZMC, GPT2, *defines(SMALL), "--dump-dir", d, *args, "-o", path(name + ".exe")])
    last = sorted(f for f in os.listdir(d) if f.endswith(".zir"))[-1]
    return os.path.join(d, last)


def test_plan_of_a_dump_equals_plan_of_the_model():
    zir = dump("dump1")
    assert zir.endswith("memplan.zir"), zir
    out, _ = run([ZMC, "plan", zir, "--json"])
    same(json.loads(out)["per_rank"], plan([])["per_rank"], "plans")


def test_an_edited_offset_is_verified():
    """Moves each of some values onto others: refused with the place, or harmless; at least one must be refused."""
    text = read(dump("dump2")).decode()
    places = [m for m in re.finditer(r"@arena\+(\d+) bytes=(\d+) live=\S+ cat=activations", text)]
    assert len(places) > 20
    refused = 0
    for m in places[::7]:
        edited = text[:m.start(1)] + "0" + text[m.end(1):]
        f = write("edited.zir", edited.encode())
        done = subprocess.run([ZMC, "plan", f], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        assert done.returncode in (0, 1), done
        if done.returncode == 1:
            contains(done.stderr.decode(), "E0601")
            refused += 1
    assert refused == len(places[::7]), f"{refused} of {len(places[::7])} overlaps with a parameter refused"


def test_an_edited_offset_is_a_multiple_of_the_element():
    text = read(dump("dump4")).decode()
    m = next(re.finditer(r"f32\[\d+\] @arena\+(\d+) bytes=\d+ live=\S+ cat=workspace", text))
    f = write("odd.zir", (text[:m.start(1)] + str(int(m[1]) + 1) + text[m.end(1):]).encode())
    _, err = run([ZMC, "plan", f], code=1)
    contains(err, "E0601", f"offset {int(m[1]) + 1}, which is not a multiple of its 4-byte elements")


def test_only_planned_dumps_are_compiled():
    """Of the dumps only the last has a plan; edited ones are checked like those given to `plan`."""
    last = dump("dump3")
    for name in sorted(os.listdir(os.path.dirname(last))):
        f = os.path.join(os.path.dirname(last), name)
        if f == last:
            continue
        for args in ([f, "-o", path("zir.exe")], [f, "--emit", "kernels"], [f, "--emit", "program"], ["plan", f]):
            _, err = run([ZMC, *args], code=1)
            contains(err, name, "error[")
    exe = path("dump3.zir.exe")
    run([ZMC, last, "-o", exe])
    same(train(exe, 3), train(compile_model(), 3), "numbers of the dump's executable and the model's")
    text = read(last).decode()
    at = list(re.finditer(r"@arena\+(\d+) bytes=\d+ live=\S+ cat=activations", text))[20]
    f = write("edited3.zir", (text[:at.start(1)] + "0" + text[at.end(1):]).encode())
    _, err = run([ZMC, f, "-o", path("zir.exe")], code=1)
    contains(err, "E0601")
    assert not os.path.exists(path("zir.exe"))
    run([ZMC, "plan", last, "--memory", "1KiB"], code=3)


def test_one_token():
    """With one row the gradient of a bias is that row itself, which is read again after the biases were packed."""
    exe = compile_model(d={**SMALL, "T": 1, "ctx": 1, "B": 1})
    plain, guarded = train(exe, 6), train(exe, 6, "--poison")
    same(plain, guarded, "a run and the same run with --poison")


def test_budget():
    need = plan([])["per_rank"][0]["arena"]
    run([ZMC, GPT2, *defines(SMALL), "--memory", need, "-o", path("fits")])
    _, err = run([ZMC, GPT2, *defines(SMALL), "--memory", need - 1, "-o", path("too-big")], code=3)
    contains(err, f"needs {need} bytes (", f"allows {need - 1} bytes (", "--recompute auto keeps less")
    _, err = run([ZMC, "plan", GPT2, *defines(SMALL), "--memory", 1000, "--recompute", "auto"], code=3)
    persistent = sum(b["bytes"] for b in plan([])["buffers"] if not b["func"])
    contains(err, "allows 1000 bytes\n", f"take {persistent} bytes (", "a smaller model", "smallest budget that fits is")
    run([ZMC, "plan", GPT2, *defines(SMALL), "--memory", persistent - 1], code=3)
    assert not os.path.exists(path("too-big"))


main()
