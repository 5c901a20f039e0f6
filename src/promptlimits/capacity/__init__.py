"""How much a prompt holds: search, witness, baselines, bracket."""
