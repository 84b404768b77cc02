"""Signals of copying, one a file: what is measured, and which honest class shows the same.

None of them is a verdict. A signal is a number in [0, 1] per request (its mean over an account is kept) or per account;
`evidence` compares them with named honest rivals. Signals with a memory keep O(1) state that packs into bytes.
"""
