"""Frozen models: what they are to the rest, where they come from, how they are read."""
