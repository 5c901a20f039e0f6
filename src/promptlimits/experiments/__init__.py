"""The papers' claims as experiments: cells, a store, statistics, figures, verdicts."""
