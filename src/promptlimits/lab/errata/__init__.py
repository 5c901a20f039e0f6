"""What the papers state, what is wrong with it, and what holds instead."""
