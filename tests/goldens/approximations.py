"""Prints the polynomials of src/kernels/authoring/elementary.rs: Chebyshev interpolation in 50 digits, then powers.

    python tests/goldens/approximations.py
"""

import mpmath as mp
import numpy

mp.mp.dps = 50


def interpolate(function, degree):
    """Coefficients in powers of u, lowest first, of the interpolant at the Chebyshev nodes of [-1, 1]."""
    count = degree + 1
    nodes = [mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]
    values = [function(node) for node in nodes]
    chebyshev = [
        2 * mp.fsum(values[k] * mp.cos(mp.pi * j * (2 * k + 1) / (2 * count)) for k in range(count)) / count
        for j in range(count)
    ]
    chebyshev[0] /= 2
    powers = [mp.mpf(0)] * count
    before, now = [mp.mpf(1)], [mp.mpf(0), mp.mpf(1)]
    for coefficient in chebyshev:
        for power, value in enumerate(before):
            powers[power] += coefficient * value
        after = [mp.mpf(0)] + [2 * value for value in now]
        for power, value in enumerate(before):
            after[power] -= value
        before, now = now, after
    return powers


def on(function, low, high, degree):
    """The same on [low, high]."""
    middle, half = (low + high) / 2, (high - low) / 2
    powers = interpolate(lambda u: function(middle + half * u), degree)
    shifted = [mp.mpf(0)] * (degree + 1)
    for power, coefficient in enumerate(powers):
        for chosen in range(power + 1):
            term = mp.binomial(power, chosen) * (-middle) ** (power - chosen) / half**power
            shifted[chosen] += coefficient * term
    return shifted


def tail(u):
    """(5 + t) exp(t^2 / 2) N(-t) at t = 5 (1 + u) / (1 - u)."""
    t = 5 * (1 + u) / (1 - u)
    return (t + 5) * mp.erfc(t / mp.sqrt(2)) / 2 * mp.exp(t * t / 2)


def logarithm(z):
    """(2 atanh(s) - 2 s) / s^3 at z = s^2."""
    if z <= 0:
        z = mp.mpf(10) ** -40
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) - 2 * s) / s**3


def show(name, powers, kind):
    print(name)
    for power in powers:
        print(f"    {kind(power)!s},")


HALF_LN2 = mp.log(2) / 2
WIDEST = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2
for kind, exp_degree, ln_degree, tail_degree in [(numpy.float64, 11, 7, 20), (numpy.float32, 6, 3, 9)]:
    show("EXP", on(mp.exp, -HALF_LN2, HALF_LN2, exp_degree), kind)
    show("LN", on(logarithm, mp.mpf(0), WIDEST, ln_degree), kind)
    show("TAIL", interpolate(tail, tail_degree), kind)
ln2_high = mp.mpf(int(mp.log(2) * 2**32)) / 2**32
print("LN_2 in two parts", mp.nstr(ln2_high, 20), mp.nstr(mp.log(2) - ln2_high, 20))
ln2_high = mp.mpf(int(mp.log(2) * 2**12)) / 2**12
print("LN_2 in two parts", mp.nstr(ln2_high, 20), mp.nstr(mp.log(2) - ln2_high, 20))
