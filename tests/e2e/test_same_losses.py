"""tools/same_losses.py, with which tools/demo ends: losses within the bounds pass, one beyond them does not, nor a missing step."""
from zmtest import *

TOOL = os.path.join(ROOT, "tools", "same_losses.py")


def losses(name, values):
    return write(name, "".join(json.dumps({"step": s, "loss": v}) + "\n" for s, v in enumerate(values)).encode())


def test_bounds():
    one = [6 - 0.1 * s for s in range(20)]
    a = losses("one", one)
    out, _ = run([sys.executable, TOOL, a, losses("many", [v * (1 + 0.9e-5) for v in one[:15]])])
    contains(out, "15 steps", "9.0e-06", "the same losses")
    early, late = list(one), list(one)
    early[10] *= 1 + 2e-5
    late[11] *= 1 + 2e-5  # the bound is wider by then
    out, _ = run([sys.executable, TOOL, a, losses("early", early)], 1)
    contains(out, "step 10:", "DIFFERENT")
    run([sys.executable, TOOL, a, losses("late", late)])
    late[11] *= 1 + 2e-4
    run([sys.executable, TOOL, a, losses("later", late)], 1)


def test_nothing_is_no_agreement():
    short = losses("short", [6.0, 5.0])
    _, err = run([sys.executable, TOOL, short, losses("long", [6.0, 5.0, 4.0])], 1)
    contains(err, "only 2 of 3 steps")
    run([sys.executable, TOOL, losses("none", []), losses("none2", [])], 1)


main()
