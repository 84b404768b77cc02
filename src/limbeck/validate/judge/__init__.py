"""Other models compare answers, but only after each has shown that it can.

    spec, endpoint, cache    how a judge is named, asked, and not asked twice
    ballot, duel, ask        one comparison as a judge reads it; both orders; what the replies say
    corruption, paper        pairs of which the better one is known
    licence, exam, kinship   what a judge must show, by exact bounds, before its first vote
    material, voting, panel  who votes on what; what several votes are worth
    ppi, sequential          votes corrected by verified outcomes; stopping at any time
    bradley_terry            three models or more on one scale
    judging                  all of it, in order

docs/judges.md says what is measured and how to plant a judge of one's own. Letters of array axes, beside those of
`limbeck.validate`: J judges, K models, P prompts, B resamples, M candidate values of a mean.
"""

from limbeck.validate.judge.judging import judged_ledger
from limbeck.validate.judge.spec import JudgeSpec, parse_judge

__all__ = ["JudgeSpec", "judged_ledger", "parse_judge"]
