#!/usr/bin/env python3
"""Fits the polynomials of codegen/cpu/math.c and prints them as C initialisers.

Weighted minimax by Lawson's iteration (reweighted least squares), in f64.  Coefficients are rounded to f32 one after another,
lowest power first, and the rest is fitted again, so the rounding of the large ones is made up for by the small ones.
Needs numpy.  The error printed is relative to the function.
"""
import math
import numpy as np

erfc = np.vectorize(math.erfc)
erf = np.vectorize(math.erf)


def lawson(x, y, w, powers, rounds=300):
    a = np.stack([x**p for p in powers], 1) * w[:, None]
    b = y * w
    l = np.ones_like(x)
    best, best_err = None, np.inf
    for _ in range(rounds):
        s = np.sqrt(l)
        c = np.linalg.lstsq(a * s[:, None], b * s, rcond=None)[0]
        e = np.abs(a @ c - b)
        if e.max() < best_err:
            best, best_err = c, e.max()
        l *= e + 1e-30
        l /= l.max()
        l = np.maximum(l, 1e-25)
    return best, best_err


def fit(name, x, y, w, powers):
    powers, done, rest = list(powers), [], y.astype(float)
    todo = powers[:]
    while todo:
        c, _ = lawson(x, rest, w, todo)
        k = float(np.float32(c[0]))
        done.append(k)
        rest = rest - k * x ** todo[0]
        todo = todo[1:]
    err = np.abs(rest * w).max()
    print(f"/* error {err:.1e} */ static const double {name}[] = {{")
    print("    " + ", ".join(f"{k:.9g}" for k in done) + "};")


def cheb(lo, hi, n=4000):
    t = np.cos(np.pi * (np.arange(n) + 0.5) / n)
    return 0.5 * (lo + hi) + 0.5 * (hi - lo) * t


x = cheb(-0.3475, 0.3475)
x = x[np.abs(x) > 1e-3]
fit("exp_poly", x, (np.expm1(x) - x) / x**2, x**2 / np.exp(x), range(5))  # e^r = 1 + r + r^2 P(r)

x = cheb(math.sqrt(0.5) - 1, math.sqrt(2) - 1)
x = x[np.abs(x) > 2e-3]
fit("log_poly", x, (np.log1p(x) - x + x * x / 2) / x**3, x**3 / np.log1p(x), range(9))  # ln(1+f) = f - f^2/2 + f^3 P(f)

x = cheb(1e-2, 0.65)
t = np.tanh(x)
fit("tanh_poly", x * x, (t - x) / x**3, x**3 / t, range(5))  # tanh x = x + x^3 P(x^2)

x = cheb(1e-3, 0.9)
fit("erf_poly", x * x, (erf(x) - x) / x, x / erf(x), range(7))  # erf x = x + x P(x^2)

x = cheb(0.88, 4.0)
fit("erfc_poly", x, -np.log(erfc(x)), erfc(x) / erf(x), range(9))  # erfc x = e^-P(x)

x = cheb(1e-2, math.pi / 4 + 1e-3)
fit("sin_poly", x * x, (np.sin(x) - x) / x**3, x**3 / np.sin(x), range(4))  # sin r = r + r^3 P(r^2)
x = cheb(2e-2, math.pi / 4 + 1e-3)
fit("cos_poly", x * x, (np.cos(x) - 1 + x * x / 2) / x**4, x**4 / np.cos(x), range(3))  # cos r = 1 - r^2/2 + r^4 P(r^2)
