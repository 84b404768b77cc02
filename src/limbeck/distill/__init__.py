"""Make a smaller model that mimics a larger one.

Array names end in their axes:

    B  rows of a batch              T  positions of a row or document
    V  vocabulary                   D  width of the hidden state
    N  loss positions, flattened    E  entries of a sparse distribution, over all positions
    K  entries kept per position    S  layers

A position t of a document is a *loss position* when the model, having read tokens 0..t, is asked for
token t + 1 and that answer counts.
"""
