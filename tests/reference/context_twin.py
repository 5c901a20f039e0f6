"""Thresholds of Theorems 2a, 2b, 2c and W in plain floats, straight from their statements."""

import math


def threshold_2a(d, lip, r, eps, q, delta, share, size, theta, kappa=1, rogers=False):
    e0, ew = share * delta / lip, (1 - share) * delta / lip
    spacing = (eps + delta) * theta ** (-1 / q) * math.sqrt(2 * (kappa + 1) / kappa)
    blocks = math.ceil((r / spacing) ** d) // size
    kept = 1 - theta
    rate = kept * math.log(kept * size / kappa) + theta * math.log(theta * size / (size - kappa))
    if rogers:
        balls = (d * math.log(d) + d * math.log(math.log(d)) + 5 * d) * (1 + r / e0) ** d
    else:
        balls = (1 + 2 * r / e0) ** d
    return (1 + balls) * math.log(math.e * (1 + (2 * r / ew) ** q / 4)) / (blocks * rate)


def threshold_2b(d, lip, r, eps, q, delta, size, theta, tokens, spread):
    spacing = 2 * (eps + delta) * theta ** (-1 / q)
    blocks = math.ceil((r / spacing) ** d) // size
    code = math.log(size) - theta * math.log(size - 1)
    code += theta * math.log(theta) + (1 - theta) * math.log(1 - theta)
    longest = max(0.0, tokens * ((lip * spread / (2 * delta)) ** q - 1))
    other = (longest + 1) * (1 + 2 * lip * r / delta) ** (d * longest) if longest else 0.0
    return 1 + math.log(1 + other * math.exp(-blocks * code)) / (blocks * code)


def threshold_2c(d, layers, eps, tokens, r, parts):
    gains = []
    for place, (_, mlp, _) in enumerate(layers):
        gain = mlp
        for radius, other, heads in layers[place + 1 :]:
            gain *= other * (1 + sum(v * (1 + 2 * a * radius**2) for v, a in heads))
        gains.append(gain)
    spread = sum(
        g * 2 * radius * v * math.exp(2 * a * radius**2)
        for g, (radius, _, heads) in zip(gains, layers, strict=True)
        for v, a in heads
    )
    atoms = (spread / parts[0]) ** 2 + 1
    nats = 0.0
    for g, (radius, _, heads) in zip(gains, layers, strict=True):
        eta = parts[1] / len(layers) / (g * sum(v * (1 + a * radius**2) for v, a in heads))
        nats += atoms * math.log(1 + 2 * radius / eta)
    nats += math.log(tokens * spread / parts[2] + 2) / d
    return nats / (tokens * math.log(r / (eps + sum(parts))))


def washout(layers, tokens, prompt):
    error = 0.0
    for radius, mlp, heads in layers:
        moved = error
        for v, a in heads:
            others = (tokens - 1) * math.exp(2 * a * radius**2)
            mass = others / (others + prompt + 1)
            moved += v * min(2 * radius, (1 + 2 * a * radius**2) * error + 4 * radius * mass)
        error = mlp * moved
    return error
