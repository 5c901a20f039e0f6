"""The records of `bracket` and `fit`, which every room above makes, keeps, prints or reads."""
