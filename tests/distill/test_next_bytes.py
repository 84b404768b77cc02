"""Label distributions against an enumeration of everything the teacher could have said."""

from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.distill.align import BEGUN, END, INSIDE, WHOLE, Pair, Passage, Spans, rows_of
from limbeck.distill.labels import Labels, share_labels
from limbeck.distill.next_bytes import Said, label_probs, last_needed
from limbeck.distill.spelling import Spelling
from limbeck.distill.targets import Document

STRINGS = ["".join(letters).encode() for n in (1, 2, 3) for letters in product("ab", repeat=n)]
SINGLE = STRINGS[:2]


@dataclass(frozen=True, slots=True)
class Case:
    pair: Pair
    said: Said
    labels: Labels
    teacher: list[bytes]
    student: list[bytes]

    def probs(self) -> torch.Tensor:
        rows = self.pair.rows()
        return label_probs(self.said, rows, self.pair, self.labels, self.contents())

    def contents(self) -> list[bytes]:
        (passage,) = self.pair.passages
        edges = np.clip(passage.student.edges_M1, 0, len(passage.content)).tolist()
        ends = [b""] if passage.student.end is not None else []
        return [passage.content[a:b] for a, b in pairwise(edges)] + ends


def case(
    teacher: list[bytes],
    student: list[bytes],
    theirs: list[bytes],
    ours: list[bytes],
    seed: int = 0,
) -> Case:
    """A text as both sides cut it, after one special token each, with random distributions."""
    content = b"".join(theirs)
    assert content == b"".join(ours)
    sides = [Spelling((None, *side), {0: b"<s>"}) for side in (teacher, student)]
    labels = share_labels(*sides, teacher_ends=[0], student_ends=[0])
    edges = [np.cumsum([0, *map(len, side)]) for side in (ours, theirs)]
    spans = [Spans(1, e, len(e)) for e in edges]
    student_T = np.array([0, *(1 + student.index(piece) for piece in ours), 0], dtype=np.int32)
    teacher_T = np.array([0, *(1 + teacher.index(piece) for piece in theirs), 0], dtype=np.int32)
    rng = np.random.default_rng(seed)
    probs_KV = torch.from_numpy(rng.dirichlet(np.full(len(teacher) + 1, 0.4), len(teacher_T) - 1))
    document = Document(student_T, np.zeros(len(student_T), np.bool_), False, "key")
    pair = Pair(document, teacher_T, (Passage(content, *spans),))
    return Case(pair, Said(probs_KV, 1, teacher_T), labels, teacher, student)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    vocabularies = [
        SINGLE + draw(st.lists(st.sampled_from(STRINGS[2:]), unique=True, max_size=8))
        for _ in range(2)
    ]
    content = draw(st.text("ab", min_size=1, max_size=12)).encode()
    cuts = [_cut(draw, content, vocabulary) for vocabulary in vocabularies]
    return case(*vocabularies, *cuts, seed=draw(st.integers(0, 10_000)))


def _cut(draw: st.DrawFn, content: bytes, vocabulary: list[bytes]) -> list[bytes]:
    pieces: list[bytes] = []
    while content:
        fitting = [p for p in vocabulary if content.startswith(p)]
        pieces.append(draw(st.sampled_from(sorted(fitting))))
        content = content[len(pieces[-1]) :]
    return pieces


def enumerated(made: Case, row: int) -> np.ndarray:
    """Write out every continuation with its probability, and count each for its label."""
    rows, labels = made.pair.rows(), made.labels
    token, skip = int(rows.teacher_R[row]), int(rows.skip_R[row])
    ours = labels.student
    masses = np.zeros(ours.size)
    if rows.kind_R[row] == END:
        np.add.at(masses, labels.teacher_V, made.said.of(token).numpy())
        return masses
    content, realised = made.contents()[row], int(made.pair.student.tokens_T[rows.student_R[row]])
    split, own = bool(ours.is_split(realised)), int(ours.label_V[realised])
    written = [made.labels.teacher.pieces[t] or b"" for t in made.pair.teacher_T]
    before = written[token][:skip]
    after = written[token][skip:]
    p_V = made.said.of(token).numpy()
    going_on = [(p[skip:], p_V[n]) for n, p in enumerate(made.teacher, 1) if _goes_on(p, before)]
    specials = p_V[0] if not skip else 0.0
    total = sum(mass for _, mass in going_on) + specials
    masses[labels.teacher_V[0]] += specials
    # The realised token is told apart from the others with the same bytes after the place: there is just one.
    outcomes = [(said, mass, labels.of(said)) for said, mass in going_on if said != after]
    outcomes += _expanded(made, token, after, dict(going_on)[after], content, labels.of(after))
    for said, mass, label in outcomes:
        is_realised = split and said.startswith(content) and label == own
        masses[ours.realised if is_realised else label] += mass
    return masses / total


def _goes_on(piece: bytes, before: bytes) -> bool:
    return piece.startswith(before) and len(piece) > len(before)


def _expanded(
    made: Case, token: int, said: bytes, mass: float, content: bytes, source: int
) -> list[tuple[bytes, float, int]]:
    """Follow the realised tokens until they hold the student's; what leaves the way stays where it was."""
    if len(said) >= len(content):
        return [(said, mass, made.labels.of(said) if said.startswith(content) else source)]
    p_V = made.said.of(token + 1).numpy()
    realised = int(made.pair.teacher_T[token + 1])
    outcomes: list[tuple[bytes, float, int]] = [(said, mass * p_V[0], source)]
    for number, piece in enumerate(made.teacher, 1):
        reached, way = said + piece, mass * p_V[number]
        if number == realised:
            outcomes += _expanded(made, token + 1, reached, way, content, source)
        else:
            held = reached.startswith(content)
            outcomes.append((reached, way, made.labels.of(reached) if held else source))
    return outcomes


@settings(max_examples=150, deadline=None)
@given(made=cases())
def test_rows_are_what_enumeration_finds(made: Case) -> None:
    probs_RL = made.probs().numpy()
    for row in range(len(probs_RL)):
        np.testing.assert_allclose(probs_RL[row], enumerated(made, row), atol=1e-12)


@settings(deadline=None)
@given(made=cases())
def test_every_row_is_a_distribution(made: Case) -> None:
    probs_RL = made.probs()
    assert (probs_RL >= 0).all()
    torch.testing.assert_close(probs_RL.sum(1), torch.ones(len(probs_RL), dtype=torch.float64))


@settings(deadline=None)
@given(made=cases())
def test_a_row_needs_no_distribution_past_the_last_that_is_named(made: Case) -> None:
    rows = made.pair.rows()
    for row in range(len(rows)):
        last = last_needed(rows, row, made.pair, made.labels)
        start = int(rows.teacher_R[row])
        known = made.said.probs_KV[start - 1 : last]
        cut = replace(made.said, probs_KV=known, first=start)
        one = type(rows)(*(getattr(rows, n)[row : row + 1] for n in rows.__slots__))
        said = label_probs(cut, one, made.pair, made.labels, made.contents()[row : row + 1])
        torch.testing.assert_close(said[0], made.probs()[row])


def test_with_one_tokenizer_the_teachers_distribution_is_itself() -> None:
    vocabulary = [*SINGLE, b"ab", b"aba"]
    text = [b"ab", b"aba", b"b", b"a"]
    made = case(vocabulary, vocabulary, text, text)
    probs_RL = made.probs()
    torch.testing.assert_close(probs_RL[:, : len(vocabulary) + 1], made.said.probs_KV)
    assert (probs_RL[:, len(vocabulary) + 1 :] == 0).all()


def begins(made: Case, row: int) -> float:
    """Probability that the next bytes begin with the row's realised token."""
    content, probs_L = made.contents()[row], made.probs()[row]
    held = [n for piece, n in made.labels.by_bytes.items() if piece.startswith(content)]
    return float(probs_L[[*held, made.labels.student.realised]].sum())


def test_the_tokens_of_a_chunk_multiply_to_its_probability() -> None:
    # No teacher token ends after "a" or "ab": what the student's tokens say one by one, the teacher says at once.
    teacher, student = [b"aba", b"abb", b"b"], [*SINGLE, b"ab"]
    made = case(teacher, student, [b"aba"], [b"a", b"b", b"a"])
    chunk = float(made.said.of(1)[1])
    assert begins(made, 0) * begins(made, 1) * begins(made, 2) == pytest.approx(chunk)
    made = case(student, [*SINGLE, b"abab"], [b"ab", b"a", b"b"], [b"abab"])
    chunk = float(made.said.of(1)[3] * made.said.of(2)[1] * made.said.of(3)[2])
    more = float(made.said.of(1)[3] * made.said.of(2)[3])
    assert begins(made, 0) == pytest.approx(chunk + more)


def test_a_token_with_white_space_of_its_template_is_asked_for_alone() -> None:
    made = case([*SINGLE, b"ab"], [*SINGLE, b" a"], [b"ab", b"a"], [b"a", b"b", b"a"])
    (passage,) = made.pair.passages
    tokens_T = made.pair.student.tokens_T.copy()
    tokens_T[1] = 3
    moved = Passage(
        passage.content, replace(passage.student, edges_M1=np.array([-1, 1, 2, 3])), passage.teacher
    )
    document = replace(made.pair.student, tokens_T=tokens_T)
    made = replace(made, pair=replace(made.pair, student=document, passages=(moved,)))
    assert made.pair.rows().kind_R.tolist() == [BEGUN, INSIDE, WHOLE, END]
    probs_L, ours = made.probs()[0], made.labels.student
    begun = float(made.said.of(1)[[1, 3]].sum())
    assert probs_L[ours.begun] == pytest.approx(begun)
    assert probs_L[ours.rest] == pytest.approx(1 - begun)


def test_what_is_too_unlikely_to_be_summed_is_taken_as_it_came() -> None:
    made = case([*SINGLE, b"ab"], SINGLE, [b"ab"], [b"a", b"b"])
    made.said.probs_KV[0] = torch.tensor([1.0, 0, 0, 0])
    assert made.probs()[1].tolist()[2] == 1
    assert rows_of(made.pair.passages[0]).kind_R.tolist() == [WHOLE, INSIDE, END]
