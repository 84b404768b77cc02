"""What a teacher says about the next bytes of a text, as distributions over labels.

With p_k the teacher's distribution of its k-th token, read off one forward pass, and a row whose first byte lies in
token k after the bytes b of that token (b is empty where the spans coincide):

    P(w) = sum of p_k(v) over tokens v = b + r with label(r) = w, over the sum of p_k(v) over all v = b + r

with r not empty. Where the student's realised token s spans several of the teacher's, or is no token of the
teacher, the probability that the next bytes begin with s is known too, along the realised tokens t_k, t_k+1, ...:

    C_k(s) = sum of p_k(v) over tokens v that begin with s,  +  p_k(t_k) C_k+1(s without t_k)  where s goes on after t_k

(with b + s for s in the first sum). The second term is moved to the label of s, and where s is no label, all of it
to REALISED. So the product of the probabilities that a chunk's realised tokens come is the teacher's probability
of the chunk, which Approximate Likelihood Matching (Minixhofer et al. 2025, arXiv 2503.20083) compares; here
one student token at a time, and beside everything else that could have come.

Given b means that the teacher's token did not end after b. The student cannot see that, so over text that the teacher
wrote the targets are right on average and not one by one.

Sums over tokenisations of the same bytes that leave the realised one before s are left out; see Phan et al. 2024
(arXiv 2410.09303) for the sum over all of them, which takes many forward passes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from limbeck.distill.align import BEGUN, END, WHOLE, Pair, Rows
from limbeck.distill.labels import Labels
from limbeck.distill.targets import Ids


@dataclass(frozen=True, slots=True)
class Said:
    """A teacher's distributions over the tokens of one document, some of them in a row."""

    probs_KV: Tensor
    """Probabilities of K consecutive tokens over the teacher's vocabulary, float32 or float64 on the CPU."""
    first: int
    """Number of the first of those tokens."""
    tokens_T: Ids
    """The document as the teacher reads it."""

    def of(self, token: int) -> Tensor:
        """Return the distribution [V] that the token with this number was taken from."""
        return self.probs_KV[token - self.first]


def last_needed(rows: Rows, row: int, pair: Pair, labels: Labels) -> int:
    """Return the number of the last teacher token whose distribution a row may need."""
    token = int(rows.teacher_R[row])
    left = int(rows.size_R[row] + rows.skip_R[row])
    while left > 0 and token < len(pair.teacher_T):
        left -= len(labels.teacher.pieces[int(pair.teacher_T[token])] or b"")
        token += 1
    return max(token - 1, int(rows.teacher_R[row]))


def label_probs(
    said: Said, rows: Rows, pair: Pair, labels: Labels, contents: Sequence[bytes]
) -> Tensor:
    """Return the teacher's probability of every label at some rows, [R, labels.student.size].

    Args:
        said: Covers every token that the rows need.
        rows: Of one pair.
        pair: Whose tokens were realised.
        labels: What to sum over.
        contents: The bytes of the passage that each row's token holds.
    """
    size = labels.student.size
    probs_RL = said.probs_KV.new_zeros(len(rows), size)
    plain_R = rows.kind_R != BEGUN
    direct_R = plain_R & ((rows.kind_R == WHOLE) | (rows.kind_R == END))
    direct = torch.from_numpy(np.flatnonzero(direct_R))
    teacher_V = torch.from_numpy(labels.teacher_V)
    taken_RV = said.probs_KV[torch.from_numpy(rows.teacher_R[direct_R] - said.first)]
    probs_RL[direct] = probs_RL[direct].index_add(1, teacher_V, taken_RV)
    for row in np.flatnonzero(rows.kind_R != END).tolist():
        at = _At(said, labels, int(rows.teacher_R[row]), int(rows.skip_R[row]))
        if rows.kind_R[row] == BEGUN:
            _say_begun(probs_RL[row], at, contents[row])
            continue
        if not direct_R[row]:
            _say_inside(probs_RL[row], at)
        token = int(pair.student.tokens_T[rows.student_R[row]])
        _say_realised(probs_RL[row], at, contents[row], token)
    return probs_RL


@dataclass(frozen=True, slots=True)
class _At:
    """A place in the teacher's text: within token `token`, after `skip` of its bytes."""

    said: Said
    labels: Labels
    token: int
    skip: int

    @property
    def piece(self) -> bytes:
        """All bytes of the token."""
        return self.labels.teacher.pieces[int(self.said.tokens_T[self.token])] or b""

    @property
    def before(self) -> bytes:
        """Its bytes before this place."""
        return self.piece[: self.skip]

    @property
    def after(self) -> bytes:
        """Its bytes from this place on."""
        return self.piece[self.skip :]

    @property
    def total(self) -> float:
        """Probability of all tokens that go on after the bytes before this place."""
        return float(self.starting(b"")[0].sum()) if self.skip else 1.0

    def starting(self, content: bytes, said: bytes = b"") -> tuple[Tensor, Tensor]:
        """Return probability and label of every token that says some bytes from this place on.

        Args:
            content: Those bytes.
            said: Bytes from an earlier place up to this one, for the label to begin with.
        """
        ids, found = self.labels.teacher_tokens(self.before + content, skip=self.skip, said=said)
        probs = self.said.of(self.token)[torch.from_numpy(ids)].double()
        return probs, torch.from_numpy(found)

    def next(self) -> "_At":
        """Return the beginning of the token after this one."""
        return _At(self.said, self.labels, self.token + 1, 0)

    def realised(self) -> float:
        """Return the probability of the realised token here."""
        return float(self.said.of(self.token)[int(self.said.tokens_T[self.token])])


def _say_inside(probs_L: Tensor, at: _At) -> None:
    """Fill a row that begins within one of the teacher's tokens."""
    probs, found = at.starting(b"")
    total = probs.sum()
    if total > 0:
        probs_L.index_add_(0, found, (probs / total).to(probs_L.dtype))
    else:  # too unlikely for the number format: what was realised is all that is known
        probs_L[at.labels.of(at.after)] = 1.0


def _say_realised(probs_L: Tensor, at: _At, content: bytes, token: int) -> None:
    """Move what is known of the student's realised token out of the labels it was counted for."""
    student = at.labels.student
    split = bool(student.is_split(token))
    goes_on = len(at.after) < len(content)
    total = at.total if split or goes_on else 0.0
    if total <= 0:
        return
    label = int(student.label_V[token])
    if split:
        probs, found = at.starting(content)
        _move(probs_L, label, student.realised, float(probs[found == label].sum()) / total)
    if goes_on:
        source = at.labels.of(at.after)
        for reached, mass in _along(at, content):
            to = student.realised if split and reached == label else reached
            _move(probs_L, source, to, mass / total)


def _along(at: _At, content: bytes) -> Iterator[tuple[int, float]]:
    """Yield labels with the probability of saying `content` from the next realised token on."""
    reached, said, way = at, b"", 1.0
    while len(said) + len(reached.after) < len(content):
        way *= reached.realised()
        said += reached.after
        reached = reached.next()
        probs, found = reached.starting(content[len(said) :], said)
        for label in found.unique().tolist():
            yield label, way * float(probs[found == label].sum())


def _say_begun(probs_L: Tensor, at: _At, content: bytes) -> None:
    """Fill a row of which only this is asked: do the next bytes begin with the realised token?"""
    total = at.total
    mass = float(at.starting(content)[0].sum()) + sum(m for _, m in _along(at, content))
    begun = min(1.0, mass / total) if total > 0 else 1.0
    probs_L[at.labels.student.begun] = begun
    probs_L[at.labels.student.rest] = 1 - begun


def _move(probs_L: Tensor, source: int, to: int, mass: float) -> None:
    moved = min(mass, float(probs_L[source]))
    probs_L[source] -= moved
    probs_L[to] += moved
