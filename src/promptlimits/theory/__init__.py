"""What is proved: numbers in, bounds out. Nothing here imports torch."""
