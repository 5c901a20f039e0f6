"""Weights of real checkpoints as exact float64 arrays, one layer in memory at a time."""
