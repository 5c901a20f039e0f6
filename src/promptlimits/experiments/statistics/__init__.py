"""Intervals for what experiments count."""
