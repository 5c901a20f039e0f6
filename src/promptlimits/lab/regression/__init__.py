"""Prompts fitted by least squares on the papers' transformer."""
