"""The oracle: the least error of any prompt, of any length, on one layer; found and proved."""
