"""Commands on the papers' constructions, counterexamples and experiments."""
