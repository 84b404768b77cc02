"""Composes traffic logs out of real prompts, to measure the guard with.

No public data set holds real logs of accounts, so **the accounts here are composed**. What is real and what is not:

- Real: the texts of prompts (chats, benchmark items, utterances to classify, copied instruction sets), and which turns
  of a ShareGPT conversation followed each other.
- Composed: who sent them, when, from where, with which options; every reply; system prompts, tool results and the
  templates of pipelines; turns after the first one of every chat that is not ShareGPT's; what copiers make of their
  prompts. Replies repeat words of the prompt and public prose and know nothing of the next turn, so that whatever
  dependence between turns a detector finds in ShareGPT is in the users' own words.

Texts are reused between accounts, because there are fewer texts than honest people would send. A signal that counts
prompts which accounts share is flattered by that and must not be judged on this traffic alone.

The families of each class fall into two folds (`folds.py`) that share no source of text and no tactic. A detector is
fitted on one and judged on the other.
"""
