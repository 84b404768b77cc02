"""Detectors side by side: Limbeck's watch and what it is compared with, each a running score for every account.

A detector sees one request after the other and says how suspicious the account that sent it looks by now; more is more.
A threshold on the running maximum is an accusation. Published detectors are adapted, each module says how.
"""
