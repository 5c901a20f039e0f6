"""What is right for a certificate about prompts: counting, and Theorem 1 in place of 4.7."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import comb
from typing import Any, Final

from promptlimits.checker import core
from promptlimits.checker.intervals import Interval, dyadic, exp, log, real, sqrt

_TARGETS: Final[dict[str, core.Reader]] = {
    "dim": core.whole(1),
    "prompt_tokens": core.whole(1),
    "tokens": core.whole(1),
    "pairs": core.whole(1),
    "radius": core.between(0),
    "eps": core.between(0),
}
_FEW_CHOICES = 2**14  # a binomial coefficient of so many factors is multiplied out
_PI = Interval(
    Decimal("3.14159265358979323846264338327950288419716939937510582097494459"),
    Decimal("3.14159265358979323846264338327950288419716939937510582097494460"),
)


@core.kind(
    dim=core.whole(1),
    prompt_tokens=core.whole(0),
    values=core.count(2),
    answers=core.count(1),
    pool=core.whole(0),
    share=core.between(0, 1),
    environments_log2=core.whole(0),
)
def counting(i: Any, value: dict[str, Any]) -> dict[str, Any]:
    """Largest k with Q C(n, k) > share M^k, and with M^k <= Q; Q = H N^(d m), n = max(pool, k)."""
    numbers, one = i.dim * i.prompt_tokens, i.answers == 1

    def not_excluded(k: int) -> bool:
        powers = [(i.values, numbers), (2, i.environments_log2), (i.answers, -k)]
        powers += [(i.share.denominator, 1), (i.share.numerator, -1)]
        keys = max(i.pool, k)
        if min(k, keys - k) < _FEW_CHOICES:
            return core.exceeds([*powers, (comb(keys, k), 1)])
        return core.exceeds(powers, lambda: _log_choices(keys, k))

    def every_list(k: int) -> bool:
        return not core.exceeds([(i.answers, k), (i.values, -numbers), (2, -i.environments_log2)])

    return {
        "log_prompts": core.grid_up(lambda: core.log_product([(i.values, numbers)])),
        "pairs": None if one else core.Last(not_excluded),
        "every_list_pairs": None if one else core.Last(every_list),
    }


def _log_choices(keys: int, pairs: int) -> Interval:
    """log C(n, k) for large k and n - k."""
    return _log_factorial(keys) - _log_factorial(pairs) - _log_factorial(keys - pairs)


def _log_factorial(n: int) -> Interval:
    """Stirling's series: its partial sums lie on both sides of the truth in turn."""
    x, half_log_tau = real(n), log(2 * _PI) / 2
    upper = 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5)
    lower = upper - 1 / (1680 * x**7)
    return (log(n) - 1) * x + log(n) / 2 + half_log_tau + Interval(lower.low, upper.high)


@core.kind(
    **_TARGETS, values=core.count(2), per_token=core.boolean, environments_log2=core.whole(0)
)
def vector_counting(i: Any, value: dict[str, Any]) -> dict[str, Any]:
    """Q (eps/r)^(d m k) of the volume; Q = H N^(d m_p) or H V^(m_p)."""
    if i.eps >= i.radius:
        raise ValueError("eps is not below the radius")
    power, step = i.prompt_tokens * (1 if i.per_token else i.dim), i.dim * i.tokens
    ratio, prompts = i.radius / i.eps, [(i.values, -power), (2, -i.environments_log2)]

    def volume(k: int) -> core.Powers:
        return [(ratio.numerator, step * k), (ratio.denominator, -step * k), *prompts]

    return {
        "log_share": core.grid_up(
            lambda: -core.log_product(prompts) - log(ratio) * (step * i.pairs)
        ),
        "most_pairs": core.Last(lambda k: not core.exceeds(volume(k))),
    }


@core.kind(
    **_TARGETS,
    norm=core.one_of("token", "frobenius", "matrix"),
    lipschitz=core.log_of_any_size,
    prompt_radius=core.between(0),
    least_deviation=core.between(0, closed=True),
)
def prompt_capacity(i: Any, value: dict[str, Any]) -> dict[str, Any]:
    """Share (1 + a/delta)^n ((eps + delta)/r)^N or ((eps + a/2)/r)^N, a = 2 L rho (sqrt m_p)."""
    if i.eps >= i.radius:
        raise ValueError("eps is not below the radius")
    size, numbers = i.dim * i.prompt_tokens, i.dim * i.tokens * i.pairs

    def reach() -> Any:
        spread = log(i.prompt_tokens) / 2 if i.norm == "frobenius" else 0
        return i.lipschitz() + log(2 * i.prompt_radius) + spread

    def each(kappa: Interval, delta: Interval) -> Any:
        volume = log((delta + i.eps) / i.radius)
        return core.log1p_exp(reach() - log(delta)) + kappa * volume

    def centre() -> Any:
        return core.log1p_exp(reach() - log(2 * i.eps)) + log(i.eps / i.radius)

    def falling(kappa: Fraction, delta: Interval) -> Any:
        """Times a it has the sign of minus the derivative of `each` in delta."""
        return i.eps - (kappa - 1) * delta - kappa * delta**2 * exp(-reach())

    def least(kappa: Interval) -> Any:
        """`each` at the root of `falling`."""
        slack, part = kappa - 1, kappa * exp(-reach())
        root = sqrt(slack * slack + 4 * i.eps * part)
        delta = 2 * i.eps / (root + slack) if slack.low > 0 else (root - slack) / (2 * part)
        return each(kappa, delta)

    def not_excluded(k: int) -> bool:
        kappa = Fraction(i.tokens * k, i.prompt_tokens)
        return not (core.negative(centre) or core.negative(lambda: least(real(kappa))))

    kappa = Fraction(numbers, size)
    delta = core.Last(
        lambda found: not core.negative(lambda: falling(kappa, dyadic(*found))), bits=32
    )
    if delta != value.get("delta"):
        return {"log_share": None, "delta": delta, "threshold": None, "most_pairs": None}
    net = core.grid_up(lambda: size * each(real(kappa), dyadic(*value["delta"])))
    return {
        "log_share": min(net, core.grid_up(lambda: numbers * centre())),
        "delta": delta,
        "threshold": core.Last(
            lambda found: not core.negative(lambda: least(dyadic(*found))), bits=64
        ),
        "most_pairs": core.Last(not_excluded),
    }
