"""Own forward and backward pass of frozen causal models, for many prompts at once.

Weights are frozen, so a product's backward pass needs no input of it, and the whole reverse
pass is short enough to be written by hand: half the memory of autograd's, no weight gradient,
and no work that the read positions do not ask for.
"""
