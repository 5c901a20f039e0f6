"""The search for a prompt: attempts, budgets, order, controls."""
