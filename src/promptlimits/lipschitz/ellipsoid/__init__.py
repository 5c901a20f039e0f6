"""Bounds over an ellipsoid of inputs."""
