"""What ranks send, allocate and keep resident is what the plan says: bytes counted by Open MPI's own monitoring, the arena as it
was asked of the kernel on every rank, and the peak of resident memory, on a model whose sizes no number of ranks divides."""
import re
import shutil

from zmtest import *

if not shutil.which("mpirun") or not shutil.which("mpicc"):
    print("skipped: mpirun or mpicc is not installed")
    sys.exit(77)

ODD = {"layers": 2, "heads": 1, "width": 251, "ctx": 19, "T": 17, "B": 1, "vocab": 97}
LARGE = {"layers": 4, "heads": 8, "width": 512, "ctx": 64, "T": 64, "B": 2, "vocab": 8000}
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--quiet"]
ENV = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
MOST_OVER = 0.01  # of the plan's bytes: headers of collectives
SLACK_KIB = 24 * 1024  # of resident memory beside the arena and MPI's own

# Loaded before the C library: writes the sizes of all mappings at a fixed place (as the arena's is), and at the end the most that was resident.
SPY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void note(const char *what, unsigned long n)
{
    char path[4096], line[64];
    snprintf(path, sizeof path, "%s.%s", getenv("ZMC_SPY"), getenv("OMPI_COMM_WORLD_RANK") ? getenv("OMPI_COMM_WORLD_RANK") : "0");
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0 || write(fd, line, (size_t)snprintf(line, sizeof line, "%s %lu\n", what, n)) < 0) abort();
    close(fd);
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    static void *(*next)(void *, size_t, int, int, int, off_t);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "mmap");
    void *got = next(at, n, prot, flags, fd, offset);
    if (flags & MAP_FIXED && flags & MAP_ANONYMOUS && got != MAP_FAILED) note("fixed", n);
    return got;
}

__attribute__((destructor)) static void at_end(void)
{
    char text[8192];
    int fd = open("/proc/self/status", O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *peak = strstr(text, "VmHWM:");
    if (peak) note("peak_kib", strtoul(peak + 6, NULL, 10));
}
"""
NOTHING = "#include <mpi.h>\nint main(void) { return MPI_Init(0, 0) || MPI_Finalize(); }\n"


def built(name, text, command):
    out = path(name)
    if not os.path.exists(out):
        run([*command, "-O1", "-o", out, write(name + ".c", text.encode()), *(["-ldl"] if "-shared" in command else [])])
    return out


def words(n):
    """u16 tokens below 8,000."""
    return write("words", b"".join((i * 7919 % 8000).to_bytes(2, "little") for i in range(n)))


def plan_of(d, n, zero, *extra):
    out, _ = run([ZMC, "plan", GPT2, *defines(d), "--ranks", n, "--zero", zero, *extra, "--json"])
    return json.loads(out)


def exe_of(d, n, zero, *extra):
    return compile_model(d=d, extra=("--ranks", n, "--zero", zero, *extra))


def spied(n, command):
    """{what: [values]} of each rank."""
    log = path("spy")
    for r in range(n):
        if os.path.exists(f"{log}.{r}"):
            os.unlink(f"{log}.{r}")
    spy = built("spy.so", SPY, ["cc", "-shared", "-fPIC"])
    run([*MPIRUN, "-n", n, "-x", f"LD_PRELOAD={spy}", "-x", f"ZMC_SPY={log}", *command], env=ENV)
    out = []
    for r in range(n):
        seen = {}
        for line in read(f"{log}.{r}").decode().splitlines():
            what, value = line.split()
            seen.setdefault(what, []).append(int(value))
        out.append(seen)
    return out


def test_arena_is_the_plan():
    for n in (1, 2, 3, 4, 8):
        for zero in range(4):
            plan, m = plan_of(ODD, n, zero), path("arena.jsonl")
            if os.path.exists(m):
                os.unlink(m)
            ranks = spied(n, [exe_of(ODD, n, zero), "--data", tokens(vocab=97), "--steps", 1, "--threads", 1, "--metrics", m])
            same(len(plan["per_rank"]), n, "ranks of the plan and of the run")
            for r, (planned, seen) in enumerate(zip(plan["per_rank"], ranks)):
                assert planned["arena"] in seen["fixed"], f"rank {r} of {n}, stage {zero}: the plan's arena is {planned['arena']}, the mappings {seen['fixed']}"
                assert sum(f > 1 << 20 for f in seen["fixed"]) == 1, f"rank {r} of {n}, stage {zero}: another large mapping beside the arena: {seen['fixed']}"
            same(metrics(m)[0]["arena_bytes"], max(p["arena"] for p in plan["per_rank"]), f"arena_bytes on {n} ranks at stage {zero} and the plan")


def sent(n, exe, steps):
    """Bytes that each rank gave to MPI, as its own monitoring counts them."""
    name, m = path("monitoring"), path("volume.jsonl")
    if os.path.exists(m):
        os.unlink(m)
    options = [w for k, v in (("enable", 2), ("enable_output", 3), ("filename", name)) for w in ("--mca", f"pml_monitoring_{k}", v)]
    run([*MPIRUN, "-n", n, *options, exe, "--data", tokens(vocab=97), "--steps", steps, "--threads", 1, "--metrics", m], env={**ENV, "ZMC_SHM": "0"})
    found = [re.findall(r"^E\t\d+\t\d+\t(\d+) bytes", read(f"{name}.{r}.prof").decode(), re.M) for r in range(n)]
    assert all(len(f) == n - 1 for f in found), found
    return [sum(map(int, f)) for f in found], metrics(m)


def test_volume_is_the_plan():
    few, many = 2, 6
    for n, zero, extra in ((2, 0, ()), (2, 3, ()), (3, 1, ()), (3, 3, ("--precision", "bf16", "--grad-comm", "low")), (4, 2, ("--accumulate", 2))):
        what = f"{n} ranks at stage {zero} {' '.join(map(str, extra))}"
        planned = sum(c["bytes"] for c in plan_of(ODD, n, zero, *extra)["comm"])
        first, _ = sent(n, exe_of(ODD, n, zero, *extra), few)
        second, lines = sent(n, exe_of(ODD, n, zero, *extra), many)
        for r, (a, b) in enumerate(zip(first, second)):
            counted = (b - a) / (many - few)  # of a step; the start and the end drop out
            assert planned * 0.999 <= counted <= planned * (1 + MOST_OVER), f"{what}: rank {r} sends {counted} bytes a step, the plan has {planned}"
        same({line["comm_bytes"] for line in lines}, {planned}, f"{what}: comm_bytes of the metrics and the plan")


def test_peak_is_the_plan():
    n, zero = 4, 3
    plan = plan_of(LARGE, n, zero)
    nothing = built("nothing", NOTHING, ["mpicc"])
    own = max(seen["peak_kib"][0] for seen in spied(n, [nothing]))
    ranks = spied(n, [exe_of(LARGE, n, zero), "--data", words(20000), "--steps", 2, "--threads", 1])
    for r, (planned, seen) in enumerate(zip(plan["per_rank"], ranks)):
        arena, peak = planned["arena"] // 1024, seen["peak_kib"][0]
        assert arena > 2 * SLACK_KIB, arena  # else the slack could hide a model
        assert arena <= peak <= arena + own + SLACK_KIB, f"rank {r}: {peak} KiB resident; the arena takes {arena}, MPI alone {own}"


main()
