"""What prompts of any length can make of a text in context: Theorems 2a, 2b, 2c and W."""
