"""The largest entropy that a prompt of one layer reaches, enclosed."""
