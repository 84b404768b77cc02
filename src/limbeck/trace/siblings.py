"""Sibling teachers: did the suspect learn from this teacher, or from one that differs by its seed alone?

Coins miss a student that learned from the teacher's probabilities, for it saw both answers weighed alike. But a teacher's
last training phase has luck of its own: the order of its data, its noise. Its owner repeats that phase R times with fresh
seeds. A suspect that did not learn from the real teacher has no reason to resemble it more than its siblings: given the
suspect, the R + 1 teachers are exchangeable, so the rank of the real one is uniform, whatever the statistic is, as long
as it treats all of them alike.

Statistic. At C contexts and K candidate next tokens each, all fixed beforehand, with the reference's probabilities q
(their sum over candidates made 1), let

    s = log p_S - log p_ref           the suspect's deviation
    t_j = log p_Tj - mean_j log p_Tj  what is peculiar to teacher j

each with its q-weighted mean taken off at every context. The weighted inner products <s, t_j> = sum_ck q_ck s t_j form a
vector h, those among teachers a matrix G, and the statistic is the vector (G + ridge I)^-1 h: how much of each teacher
explains the suspect when all the others are held fixed. `ridge` large gives the plain inner products. Permuting
teachers permutes the vector, so they are treated alike.

    p = rank / (R + 1),    e = rank^-1 (R + 1) / sum_{r=1}^{R+1} r^-1

The e-value has mean exactly 1 under a uniform rank. R = 99 siblings are the fewest for p = 0.01.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from limbeck.errors import TraceError

Floats = npt.NDArray[np.float64]
RIDGE = 0.1
"""Of the mean squared norm of what is peculiar to a teacher."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """Where models are compared; fixed before any of them is asked."""

    texts: tuple[str, ...]
    """C contexts."""
    candidates_CK: npt.NDArray[np.int64]
    """Token ids after each context."""


@dataclass(frozen=True, slots=True)
class SiblingTest:
    """The rank of the real teacher among its siblings."""

    rank: int
    """1 is nearest to the suspect."""
    siblings: int
    contexts: int
    p_value: float
    e_value: float
    statistic: tuple[float, ...]
    """Of the real teacher first, then of each sibling."""


def rank_siblings(
    suspect_CK: Floats,
    reference_CK: Floats,
    teacher_CK: Floats,
    siblings_CK: Sequence[Floats],
    *,
    ridge: float = RIDGE,
) -> SiblingTest:
    """Rank a teacher among its siblings by how much of it a suspect holds.

    Args:
        suspect_CK: Log-probabilities of the candidates under the suspect; so are the others under theirs.
        reference_CK: Under a model that weighs contexts, such as the teacher before its last phase.
        teacher_CK: Under the real teacher.
        siblings_CK: Under each re-run of its last phase.
        ridge: In multiples of the mean squared norm of a teacher's peculiarity; fixed beforehand.

    Raises:
        TraceError: No sibling, other shapes, values that are not finite, or teachers that are all the same.
    """
    teachers = [teacher_CK, *siblings_CK]
    _check([suspect_CK, reference_CK, *teachers], len(siblings_CK))
    statistic_J = sibling_statistic(suspect_CK, reference_CK, np.stack(teachers), ridge)
    # A tie goes against the accusation.
    rank = 1 + int((statistic_J[1:] >= statistic_J[0]).sum())
    return SiblingTest(
        rank=rank,
        siblings=len(siblings_CK),
        contexts=len(suspect_CK),
        p_value=rank / len(teachers),
        e_value=rank_e_value(rank, len(teachers)),
        statistic=tuple(statistic_J.tolist()),
    )


def sibling_statistic(
    suspect_CK: Floats, reference_CK: Floats, teachers_JCK: Floats, ridge: float
) -> Floats:
    """Return how much of each teacher explains the suspect, [J]; permuting teachers permutes it."""
    weight_CK = np.exp(reference_CK - reference_CK.max(axis=1, keepdims=True))
    weight_CK = weight_CK / weight_CK.sum(axis=1, keepdims=True)
    own_CK = _centred(suspect_CK - reference_CK, weight_CK)
    peculiar_JCK = _centred(teachers_JCK - teachers_JCK.mean(axis=0), weight_CK)
    root_N = np.sqrt(weight_CK).ravel()
    own_N = own_CK.ravel() * root_N
    peculiar_JN = peculiar_JCK.reshape(len(teachers_JCK), -1) * root_N
    gram_JJ = peculiar_JN @ peculiar_JN.T
    scale = float(np.trace(gram_JJ)) / len(gram_JJ)
    if not scale > 0:
        raise TraceError(
            "the teacher and its siblings say the same at every context: their last phases had no luck of their own"
        )
    return np.linalg.solve(gram_JJ + ridge * scale * np.eye(len(gram_JJ)), peculiar_JN @ own_N)


def rank_e_value(rank: int, count: int) -> float:
    """Return the e-value of a rank that is uniform on 1 .. count: proportional to 1 / rank, with mean 1.

    Raises:
        ValueError: A rank outside 1 .. count.
    """
    if not 1 <= rank <= count:
        raise ValueError(f"a rank must lie in 1 .. {count}, got {rank}")
    return count / rank / sum(1 / r for r in range(1, count + 1))


def siblings_needed(p: float) -> int:
    """Return the fewest siblings that can give a p-value this small.

    Raises:
        ValueError: A p outside (0, 1).
    """
    if not 0 < p < 1:
        raise ValueError(f"p must lie between 0 and 1, got {p}")
    return int(np.ceil(1 / p - 1e-9)) - 1


def _centred(values: Floats, weight_CK: Floats) -> Floats:
    return values - (values * weight_CK).sum(axis=-1, keepdims=True)


def _check(models: Sequence[Floats], siblings: int) -> None:
    if siblings < 1:
        raise TraceError("a rank among siblings needs at least one sibling teacher")
    shape = models[0].shape
    for log_CK in models:
        if log_CK.ndim != 2 or log_CK.shape != shape or not log_CK.size:
            raise TraceError(
                f"every model must be heard at the same contexts and candidates, got {log_CK.shape} and {shape}"
            )
        if not np.isfinite(log_CK).all():
            raise TraceError("a model gives a log-probability that is not finite")
