"""Models that write while timing watches: on this machine, or behind an API."""
