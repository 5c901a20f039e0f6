"""Decide exactly whether a product of huge integer powers exceeds one.

The integers meant here have millions of digits when multiplied out, so their logarithms are
compared in ball arithmetic instead, with more and more precision until the sign is certain.
That never ends when the product is exactly one, as happens with powers of two. So equality is
settled first by unique factorisation, over bases made coprime by greatest common divisors: no
integer is factored into primes and no power is multiplied out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import combinations

from flint import arb

from promptlimits.base.bound import log_ball, working_precision

_FIRST_PRECISION_BITS = 64
_EQUALITY_PRECISION_BITS = 512


def product_exceeds_one(terms: Iterable[tuple[int, int]]) -> bool:
    """Whether the product of base**exponent over `terms` is greater than one."""
    kept = [(base, exponent) for base, exponent in terms if base != 1 and exponent != 0]
    precision = _FIRST_PRECISION_BITS
    while True:
        with working_precision(precision):
            total = arb(0)
            for base, exponent in kept:
                total += exponent * log_ball(base)
            if total > 0:
                return True
            if total < 0:
                return False
        if precision == _EQUALITY_PRECISION_BITS and product_is_one(kept):
            return False
        precision *= 2


def product_is_one(terms: Iterable[tuple[int, int]]) -> bool:
    """Whether the product of base**exponent over `terms` is exactly one.

    Two bases a and b with a common divisor g > 1 are replaced by a/g, b/g and g, which leaves
    the product as it is: a^e b^f = (a/g)^e (b/g)^f g^(e+f). The product of the bases shrinks
    by the factor g each time, so this ends, with bases that are pairwise coprime. By unique
    factorisation a product of powers of such bases (each above 1) is one only if every
    exponent is zero.
    """
    exponents: Counter[int] = Counter()
    for base, exponent in terms:
        exponents[base] += exponent
    del exponents[1]
    while pair := _with_common_divisor(exponents):
        first, second = pair
        divisor = math.gcd(first, second)
        power_first, power_second = exponents.pop(first), exponents.pop(second)
        exponents[first // divisor] += power_first
        exponents[second // divisor] += power_second
        exponents[divisor] += power_first + power_second
        del exponents[1]
    return not any(exponents.values())


def _with_common_divisor(bases: Iterable[int]) -> tuple[int, int] | None:
    """Two bases that are not coprime, if there are any."""
    for first, second in combinations(bases, 2):
        if math.gcd(first, second) > 1:
            return first, second
    return None
