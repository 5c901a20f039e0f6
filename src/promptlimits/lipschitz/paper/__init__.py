"""Lipschitz constants and invertibility of the papers' transformer."""
