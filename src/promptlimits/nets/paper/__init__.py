"""The papers' transformer, as they define it, with its mean-field limit."""
