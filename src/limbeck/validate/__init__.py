"""Say what a student kept of its teacher, so that a sceptic can check it.

Three ledgers, never averaged together: *verified* (a program checks answers against gold), *fidelity* (how near the
student's distributions and answers lie to the teacher's; no gold needed) and *judged* (other models compare answers).

Array names end in their axes:

    I  items of a task              C  choices of an item
    T  tokens of a sequence         V  vocabulary
    N  positions, flattened         G  clusters: items that share a passage or a user
"""
