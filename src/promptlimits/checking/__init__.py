"""Verify certificates without the code that wrote them."""
