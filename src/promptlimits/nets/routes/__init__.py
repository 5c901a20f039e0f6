"""A language model as a frozen function of its prompt: its ways to losses and gradients."""
