"""bench_blas.py -- the matrix products of one training step by numpy's BLAS: shapes as JSON on the command line
[[M, K, N, form], ...]; then a line on stdin asks for one round, which is answered with the seconds of each shape.

form: "y" = x w, "dx" = dy w^T, "dw" = x^T dy, M K N being those of the form's own product.  Operands rotate through copies that
no cache holds together, as in a training step.
"""
import json
import os
import sys
import time

threads = sys.argv[2]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = threads
# A kernel chosen for another machine (an inherited value, or an old library that does not know this CPU) would be slow.
os.environ.pop("OPENBLAS_CORETYPE", None)
if sys.argv[3] != "auto":
    os.environ["OPENBLAS_CORETYPE"] = sys.argv[3]

import numpy  # noqa: E402  reads the variables above

try:
    from threadpoolctl import threadpool_info
except ImportError:  # then the library is not named

    def threadpool_info():
        return []


COPIES_BYTES = 96 << 20


def operands(m, k, n, form):
    a = (k, m) if form == "dw" else (m, k)
    b = (n, k) if form == "dx" else (k, n)
    count = max(2, min(16, COPIES_BYTES // (4 * (m * k + k * n + m * n)) + 1))
    sets = [(numpy.ones(a, numpy.float32), numpy.ones(b, numpy.float32), numpy.zeros((m, n), numpy.float32)) for _ in range(count)]
    return [(x.T if form == "dw" else x, w.T if form == "dx" else w, y) for x, w, y in sets]


def main():
    shapes = [tuple(s) for s in json.loads(sys.argv[1])]
    work = {s: operands(*s) for s in shapes}
    blas = [p for p in threadpool_info() if p["user_api"] == "blas"]
    print(json.dumps(blas[0] if blas else {}), flush=True)
    for _ in sys.stdin:
        times = []
        for s in shapes:
            start = time.perf_counter()
            for x, w, y in work[s]:
                numpy.matmul(x, w, out=y)
            times.append((time.perf_counter() - start) / len(work[s]))
        print(json.dumps(times), flush=True)


main()
