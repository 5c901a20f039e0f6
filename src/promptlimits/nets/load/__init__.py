"""Causal language models through transformers."""
