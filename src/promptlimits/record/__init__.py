"""The records of `bracket` and `fit`: `capacity` makes them, `report` and `cli` show them."""
