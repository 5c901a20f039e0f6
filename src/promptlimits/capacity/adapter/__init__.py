"""Adapters trained elsewhere, scored by stock tools."""
