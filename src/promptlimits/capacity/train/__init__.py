"""Training prompts on a frozen model, many at once."""
