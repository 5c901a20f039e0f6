"""Files of pairs: formats, columns, and what is read from them."""
