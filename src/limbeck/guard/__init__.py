"""Serve a model behind a gateway that tells copying from benchmarking and from heavy honest use."""
