"""Commands that apply a theorem, and the one that checks a certificate."""
