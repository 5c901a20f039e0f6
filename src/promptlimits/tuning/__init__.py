"""Training soft prompts on a frozen model."""
