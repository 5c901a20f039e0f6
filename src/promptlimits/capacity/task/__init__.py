"""Pairs to hold: from files, from installed facts, or drawn at random; encoded for a model."""
