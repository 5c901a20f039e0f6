"""Helpers for tests of this package and of what builds on it."""
