"""zmc plan of many ranks and stages: every plan that it lists is the plan of that number of ranks and stage; what fits; what it answers."""
import csv
import io
import json
import re

from zmtest import *

LOW = ("--precision", "bf16", "--grad-dtype", "low")
COLUMNS = ("params", "master", "optimizer", "grads", "activations", "gathered", "workspace", "inputs", "other", "padding", "peak_live", "arena", "states", "closed_form")


def plan(*args, code=0):
    return run([ZMC, "plan", GPT2, *defines(SMALL), *LOW, *args], code)


def sweep(*args, code=0):
    return json.loads(plan("--json", *args, code=code)[0])


def test_rows_are_the_plans():
    rows = sweep("--ranks", "1..8", "--zero", "all")["plans"]
    same([(r["ranks"], r["zero"]) for r in rows], [(n, z) for n in (1, 2, 4, 8) for z in range(4)], "ranks and stages")
    for r in rows:
        one = sweep("--ranks", r["ranks"], "--zero", r["zero"])
        for key in COLUMNS:
            a, b = r[key], one["per_rank"][0][key]
            # Less search for the least arena than a plan alone makes: docs/memory.md.
            assert a == b or key == "arena" and b <= a <= b * (1 + 1 / 128), (key, r["ranks"], r["zero"], a, b)
        same(r["comm_bytes"], sum(c["bytes"] for c in one["comm"]), "bytes sent")


def test_ranges():
    def ranks(*args):
        return [(r["ranks"], r["zero"]) for r in sweep(*args)["plans"]]
    same(ranks("--ranks", "3..13"), [(3, 0), (6, 0), (12, 0)], "3..13")
    same(ranks("--ranks", "4..8", "--zero", 2), [(4, 2), (8, 2)], "4..8 at one stage")
    same(ranks("--ranks", 5, "--zero", "all"), [(5, z) for z in range(4)], "all stages of 5 ranks")


def answer(rows, memory):
    """The rule, said once more: fewest ranks that fit, then least sent, then smallest arena."""
    fit = sorted((r["ranks"], r["comm_bytes"], r["arena"], r["zero"]) for r in rows if r["arena"] <= memory)
    return {"ranks": fit[0][0], "zero": fit[0][3]} if fit else None


def test_answer():
    rows = sweep("--ranks", "1..16", "--zero", "all")["plans"]
    for memory in sorted({r["arena"] for r in rows}):
        got = sweep("--ranks", "1..16", "--zero", "all", "--memory", memory)
        same(got["answer"], answer(got["plans"], memory), f"answer for {memory}")
        same([r["fits"] for r in got["plans"]], [r["arena"] <= memory for r in got["plans"]], f"what fits in {memory}")
        for a, b in zip(got["plans"], rows):
            assert a["arena"] <= b["arena"], (a, b)  # more search where it decides
        for zero in range(4):
            fit = [r["ranks"] for r in rows if r["zero"] == zero and r["arena"] <= memory]
            same(got["fewest_ranks"][str(zero)], {"ranks": fit[0], "zero": zero} if fit else None, f"fewest ranks of zero {zero}")


def test_nothing_fits():
    least = min(sweep("--ranks", n, "--zero", z)["per_rank"][0]["arena"] for n in (1, 2, 4) for z in range(4))
    got = sweep("--ranks", "1..4", "--zero", "all", "--memory", least - 1, code=3)
    same((got["answer"], any(r["fits"] for r in got["plans"])), (None, False), "answer")
    out, err = plan("--ranks", "1..4", "--zero", "all", "--memory", least - 1, code=3)
    contains(err, "error[E0602]", "none of the 12 plans fits", f"the smallest budget that fits is {least} bytes")
    contains(out, "zero 3: fits on none of these ranks")
    plan("--ranks", "1..4", "--zero", "all", "--memory", least)


def test_text_and_csv():
    rows = sweep("--ranks", "1..4", "--zero", "all")["plans"]
    memory = max(r["arena"] for r in rows)
    out, _ = plan("--ranks", "1..4", "--zero", "all", "--memory", memory)
    lines = [l.split() for l in out.splitlines()[2:]]
    same([l[:2] for l in lines[:12]], [[str(r["ranks"]), str(r["zero"])] for r in rows], "first columns")
    contains(out, "answer: --ranks 1 --zero ", "zero 0: fewest ranks 1, arena ")
    table = list(csv.DictReader(io.StringIO(plan("--ranks", "1..4", "--zero", "all", "--memory", memory, "--csv")[0])))
    same(len(table), len(rows), "lines and rows")
    for line, r in zip(table, rows):
        for key in ("ranks", "zero", *COLUMNS, "comm_bytes"):
            same(int(line[key]), r[key], key)
        same(line["fits"], "1", "what fits")
        same(line["sends_least"], str(int(r["sends_least"])), "what sends least")


def test_what_sends_least_is_said():
    """It is no choice on one rank, and the table says what it is among."""
    memory = max(r["arena"] for r in sweep("--ranks", "1..4", "--zero", "all")["plans"])
    for args, legend in (((), "among the stages on as many ranks"), (("--memory", memory), "among the stages that fit on as many ranks")):
        lines = plan("--ranks", "1..4", "--zero", "all", *args)[0].splitlines()
        marked = [int(l.split()[0]) for l in lines[2:14] if "sends least" in l]
        same(marked, [2, 4], "ranks with a stage that sends least")
        same([l for l in lines if l.startswith("sends least: ")], [f"sends least: {legend}; of equals the smallest arena"], "legend")
    assert "sends least" not in plan("--ranks", 1, "--zero", "all")[0]


def test_a_bad_model_is_told_once():
    bad = write("bad.zm", b"model m(x: [3, 4]) {\n  output y = x + z\n}\n")
    _, err = run([ZMC, "plan", bad, "--ranks", "1..4"], code=1)
    same(err.count("error["), 1, "number of errors")
    contains(err, "bad.zm:2:")


def test_one_stage_refused():
    """A stage that a pass refuses has a line that says why; the others are planned."""
    out, err = run([ZMC, "plan", GPT2, *defines(SMALL), "--precision", "fp16", "--ranks", "1..2"])
    same(err.count("fp16 without a loss scale"), 1, "number of warnings")
    assert "refused" not in out, out


def test_a_refused_row_says_what_works():
    args = ("--ranks", 2, "--max-gathered-bytes", "4KiB")
    _, err = plan(*args, "--zero", 3, code=1)
    help = re.search(r"the least that works is --max-gathered-bytes \d+", err)[0]
    row = next(l for l in plan(*args, "--zero", "all")[0].splitlines() if "refused" in l)
    contains(row, "of gathered parameters at once", help)
    contains(sweep(*args, "--zero", "all")["plans"][3]["refused"], help)


def test_a_plan_over_budget_points_to_ranks():
    for args, parts in (((), ("many ranks with --zero 1, 2 or 3", "--ranks 1..64 --zero all")),
                        (("--ranks", 2, "--zero", 2), ("a higher --zero or more --ranks", "--ranks 1..64 --zero all")),
                        (("--ranks", 128, "--zero", 3), ("more --ranks", "--ranks 1..512 --zero all"))):
        for memory in (4096, "300KiB"):
            _, err = plan(*args, "--memory", memory, code=3)
            contains(err, "error[E0602]: the plan needs", *parts, f"zmc plan {GPT2}", "--memory")
            if "higher" not in parts[0]:
                assert "higher --zero" not in err, err
    bytes_of = re.search(r"zmc plan \S+ (--ranks \S+ --zero all --memory \d+)", err)[1].split()
    assert sweep(*bytes_of, code=3)["answer"] is None


main()
