"""Theorems: one class each, whose fields are the inputs and whose method is the bound."""
