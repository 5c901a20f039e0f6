"""Float arithmetic with proved error radii."""
