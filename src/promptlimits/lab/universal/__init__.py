"""Transformers built by hand, whose prompts do what a theorem says."""
