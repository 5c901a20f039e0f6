"""Certificates checked: nothing here imports the rest of the package."""
