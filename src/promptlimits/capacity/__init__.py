"""How much a prompt holds: tasks, training, search, witnesses, adapters, the store, the bracket."""
