"""Say whether a model was trained on another's answers, with a known error rate."""
