"""Evidence against named honest rivals, with a false accusation rate that its calibration can support.

Array names end in their axes:

    F  features               K  checkpoints
    R  rivals: honest classes J  ways of copying that were fitted on
    N  rows or histories         A  accounts
    C  clusters
"""
