"""Commands that run grids of experiments."""
