"""What a record says, for people: rows, tables, one figure and one self-contained page."""
