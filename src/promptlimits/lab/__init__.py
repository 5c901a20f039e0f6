"""The papers' constructions, counterexamples and experiments."""
