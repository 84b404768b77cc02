"""The console: accounts by evidence, what was done to them, and what waits for a person; pages without scripts."""
