"""The parts of `benchmarks/guard.py`: what is run, on one fold and on the other, and how it is told."""
