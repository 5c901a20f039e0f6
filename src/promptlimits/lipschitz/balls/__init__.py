"""Arithmetic with proved errors: floats with radii for speed, arb for any precision.

`matrix.MatrixBall` knows a matrix up to a spectral norm, which a product of wide matrices
multiplies as a whole; `spectral.ScaledBall` is one times a power of two. `entries.Balls` knows each
entry of a batch of arrays by itself, as boxes of a search need it. `rounding` goes between exact
numbers, floats and arb; `forward` evaluates the papers' transformer in arb.
"""
