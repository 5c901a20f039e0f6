"""One module for each family: its tensors' names, and how they make a block."""
