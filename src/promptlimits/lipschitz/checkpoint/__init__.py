"""Lipschitz constants of real checkpoints."""
