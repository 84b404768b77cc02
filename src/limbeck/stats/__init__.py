"""Statistics that decide a verdict: pure, seeded, each formula with its source.

Array names end in their axes: I items, G clusters, J rounds, R candidate ratios, L bets.
"""
