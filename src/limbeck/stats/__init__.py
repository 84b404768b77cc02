"""Statistics that decide a verdict: pure, seeded, each formula with its source.

Array names end in their axes:

    I  items                 G  clusters: items that share their luck
    J  rounds of betting     L  bets, each another share of the stake
    R  candidate ratios      K  tasks
    W  who: student, teacher C  the four corners of two scores
"""
