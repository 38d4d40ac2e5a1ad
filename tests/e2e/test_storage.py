"""What 16 bits store: bytes of the plan, initial values, checkpoints, exports and gradients of every precision."""
import itertools
import json
import re
import struct

from zmtest import *

BF16 = ("--precision", "bf16")
FP16 = ("--precision", "fp16")
LOW = ("--grad-dtype", "low")


def plan(args):
    out, _ = run([ZMC, "plan", GPT2, *defines(SMALL), *args, "--json"])
    return json.loads(out)


def bf16_of(data):
    """f32 bytes rounded to bf16, nearest even, as f32 bytes."""
    bits = struct.unpack(f"<{len(data) // 4}I", data)
    return struct.pack(f"<{len(bits)}I", *((b + 0x7FFF + (b >> 16 & 1)) & 0xFFFF0000 for b in bits))


def test_states_by_the_closed_form():
    """Bytes of a parameter: parameter, gradient, master, two moments (docs/precision.md)."""
    cases = [((), 16), (BF16, 18), (FP16, 18), ((*BF16, *LOW), 16), ((*BF16, "--amp", "autocast"), 16),
             ((*BF16, "--moments", "bf16"), 14), ((*BF16, "--pure"), 14), ((*BF16, *LOW, "--pure", "--moments", "bf16"), 8),
             (("--moments", "bf16"), 12)]
    for (args, each), accumulate in itertools.product(cases, (1, 2)):
        p = plan([*args, "--accumulate", accumulate])
        r = p["per_rank"][0]
        padded = sum(b["bytes"] for b in p["buffers"] if b["name"].startswith("bucket.")) // (2 if p["dtypes"]["params"] == "bf16" or p["dtypes"]["params"] == "f16" else 4)
        same(r["closed_form"], each * padded, f"closed form of {args}")
        assert r["states"] <= r["closed_form"], (args, r)
        assert padded - p["params"] < 64 * 8, padded


def test_closed_form_of_f32_exceptions():
    """A parameter that stays f32 is counted as one: without a master, and in a pure mode with more bytes than the others."""
    cases = [(BF16, 18, 16), ((*BF16, *LOW), 16, 14), ((*BF16, "--pure"), 14, 16), ((*BF16, *LOW, "--pure", "--moments", "bf16"), 8, 10)]
    for args, low, f32 in cases:
        p = plan([*args, "--precision-of", "layernorm=f32"])
        r = p["per_rank"][0]
        same(p["dtypes"]["params"], "bf16+f32", "dtypes of parameters")
        params, moments = (sum(b["bytes"] for b in p["buffers"] if b["name"].startswith(n + "bucket.")) for n in ("", "exp_avg."))
        padded = moments // (2 if "--moments" in args else 4)
        n_f32 = (params - 2 * padded) // 2  # params = 4 f32 + 2 (padded - f32)
        same(r["closed_form"], low * (padded - n_f32) + f32 * n_f32, f"closed form of {args}")
        assert n_f32 > 0 and r["states"] <= r["closed_form"], (args, r)


def test_activations_fall():
    """GPT-2 124M, B = 4, T = 64: with masters activations take 45 % less at least."""
    size = ["-D", "B=4", "-D", "T=64", "--json"]
    bytes_of = {args: json.loads(run([ZMC, "plan", GPT2, *size, *args])[0])["per_rank"][0]["activations"] for args in ((), BF16, FP16)}
    for args in (BF16, FP16):
        assert bytes_of[args] <= 0.55 * bytes_of[()], bytes_of


def test_plan_names_dtypes():
    want = {"params": "bf16", "grads": "f32", "accumulators": "f32", "wire": "none", "master": "f32", "moments": "f32"}
    same(plan([*BF16, "--accumulate", 2])["dtypes"], want, "dtypes")
    low = plan([*FP16, *LOW, "--accumulate", 2])
    same((low["precision"], low["amp"]), ("fp16", "master"), "precision")
    same(low["dtypes"], {**want, "params": "f16", "grads": "f16", "accumulators": "f16"}, "dtypes of fp16, low")
    pure = plan([*BF16, "--pure", "--moments", "bf16"])
    same(pure["dtypes"], {**want, "accumulators": "none", "master": "none", "moments": "bf16"}, "dtypes of pure bf16")
    same(pure["amp"], "pure", "amp of pure bf16")
    plain = plan([])
    same((plain["precision"], plain["amp"]), ("fp32", "none"), "precision of fp32")


def test_moments_of_an_optimizer_without_any():
    mlp = read(os.path.join(MODELS, "mlp.zm")).decode()
    plain = re.sub(r"optimizer \w+\([^()]*\)", "optimizer sgd(lr = 0.1)", mlp)
    for text, is_warned in ((plain, True), (plain.replace("lr = 0.1", "lr = 0.1, momentum = 0.9"), False)):
        _, err = run([ZMC, "plan", write("sgd.zm", text.encode()), "--moments", "bf16"])
        same("--moments bf16: sgd without momentum has no moments" in err, is_warned, "warning and none")


def test_initial_weights_do_not_depend_on_precision():
    exported = []
    for args in ((), BF16, FP16, (*BF16, "--amp", "autocast")):
        run([compile_model(extra=args), "--steps", 0, "--seed", 5, "--export", path("w.safetensors")])
        exported.append(read(path("w.safetensors")))
    for e in exported[1:]:
        assert e == exported[0]


def test_resume_is_exact():
    for args in (BF16, FP16, (*BF16, *LOW, "--moments", "bf16", "--accumulate", "2"), (*BF16, "--pure")):
        exe = compile_model(extra=args)
        straight = train(exe, 6, "--export", path("a.safetensors"))
        ck = path("ck-" + "-".join(args))
        train(exe, 3, "--save", ck)
        again = train(exe, 6, "--resume", ck, "--export", path("b.safetensors"))
        same(again, straight[3:], f"steps after resuming {args}")
        assert read(path("a.safetensors")) == read(path("b.safetensors"))


def test_resume_in_another_precision():
    """A step after conversion starts from the same masters: f32 after bf16 goes on with what bf16 had."""
    ck = path("ck-convert")
    train(compile_model(extra=BF16), 3, "--save", ck, "--export", path("a.safetensors"))
    for args in ((), FP16, (*BF16, "--moments", "bf16")):
        out, err = run([compile_model(extra=args), "--data", tokens(), "--steps", 3, "--resume", ck, "--export", path("b.safetensors")])
        assert read(path("a.safetensors")) == read(path("b.safetensors")), args
    contains(run([compile_model(), "--data", tokens(), "--steps", 3, "--resume", ck])[1], "the checkpoint's precision is bf16: converted to fp32")
    pure = compile_model(extra=(*BF16, "--pure"))
    train(pure, 3, "--resume", ck, "--export", path("p.safetensors"))
    rounded = {k: bf16_of(t[2]) for k, t in safetensors(path("a.safetensors")).items()}
    same({k: t[2] for k, t in safetensors(path("p.safetensors")).items()}, rounded, "parameters without masters")
    train(pure, 4, "--resume", ck, "--save", path("ck-pure"), "--export", path("p.safetensors"))
    train(compile_model(extra=BF16), 4, "--resume", path("ck-pure"), "--export", path("b.safetensors"))
    assert read(path("p.safetensors")) == read(path("b.safetensors"))
    goes_on = train(compile_model(), 6, "--resume", ck)
    same([m["step"] for m in goes_on], [3, 4, 5], "steps")


def test_gradients_are_f32_and_poison_changes_nothing():
    for args in (BF16, (*BF16, *LOW), FP16, (*BF16, "--pure")):
        exe = compile_model(extra=args)
        m = train(exe, 2, "--dump-grads", path("g.safetensors"), "--export", path("a.safetensors"))
        assert {t[0] for t in safetensors(path("g.safetensors")).values()} == {"F32"}
        poisoned = train(exe, 2, "--poison", "--export", path("b.safetensors"))
        same(poisoned, m, "metrics with --poison")
        assert read(path("a.safetensors")) == read(path("b.safetensors"))


def test_fault_skips_a_step():
    for args in (BF16, (*FP16, *LOW), (*BF16, "--pure")):
        exe = compile_model(extra=args)
        train(exe, 1, "--export", path("a.safetensors"))
        m = train(exe, 2, "--fault", "nonfinite@1", "--export", path("b.safetensors"))
        same([s["skipped"] for s in m], [False, True], "skipped")
        assert read(path("a.safetensors")) == read(path("b.safetensors")), "a skipped step changes no parameter"


def test_pure_rounds_alike_in_every_layout():
    """The random numbers belong to parameters and elements, not to buckets, threads or micro-batches' numbers."""
    args = (*BF16, "--pure")
    one = compile_model(extra=args)
    train(one, 4, "--threads", 1, "--export", path("a.safetensors"))
    for exe, extra in ((one, ("--threads", 2)), (compile_model(extra=(*args, "--bucket-bytes", "4096")), ())):
        train(exe, 4, *extra, "--export", path("b.safetensors"))
        assert read(path("a.safetensors")) == read(path("b.safetensors")), extra
    train(one, 4, "--seed", 1, "--export", path("b.safetensors"))
    assert read(path("a.safetensors")) != read(path("b.safetensors"))


def test_info():
    out, _ = run([compile_model(extra=(*FP16, *LOW)), "--info"])
    contains(out, "precision   fp16")
    contains(out, "dtypes: params f16, grads f16, accumulators none, wire none, master f32, moments f32")


def test_bad_storage_is_refused():
    for args, why in ((LOW, "with --precision fp32 no gradient has 16 bits"), (("--pure",), "add --precision bf16"),
                      ((*FP16, "--pure"), "--pure keeps parameters in bf16, not in fp16"),
                      ((*BF16, "--amp", "autocast", "--pure"), "use --amp master"), (("--moments", "f16"), "--moments takes f32|bf16, not 'f16'")):
        contains(run([ZMC, GPT2, *args, "-o", path("no")], code=1)[1], why)


def test_load_beyond_f16():
    """A weight that f16 cannot hold is refused by name, not loaded as infinity; bf16 holds it."""
    exe = compile_model(extra=FP16)
    run([exe, "--data", tokens(), "--steps", 0, "--export", path("w.safetensors")])
    w = safetensors(path("w.safetensors"))
    dtype, shape, data = w["ln_f.weight"]
    w["ln_f.weight"] = (dtype, shape, data[:8] + struct.pack("<f", 1e6) + data[12:])
    big = write_safetensors("big.safetensors", w)
    _, err = run([exe, "--data", tokens(), "--steps", 1, "--load", big], 1)
    contains(err, "ln_f.weight", "element 2", "65504", "--precision bf16")
    run([compile_model(extra=BF16), "--data", tokens(), "--steps", 1, "--load", big])


main()
