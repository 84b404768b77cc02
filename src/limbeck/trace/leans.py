"""A suspect's leans with those of the references taken away, in plain arithmetic; the verifier's own second copy.

For coin i, with u_j the suspect's lean l_S(y1) - l_S(y0) and r_j those of the K references, over coins j = 1 .. i,

    d_i = u_i - w_i . r_i,        w_i = (G + c I)^-1 (sum_j u_j r_j + c/K),    G = sum_j r_j r_j^T,
    c = 16 max(trace(G) / (K i), 1e-12)

which is a ridge regression around 1/K that reads no bit. `one` fixes w = 1/K; without references d is u. It is written
apart from `limbeck.trace.audit` on purpose: what two pieces of code agree on is not one's mistake.
"""

from collections.abc import Sequence

RIDGE = 16.0
_FLOOR = 1e-12


def leans(
    suspect: Sequence[float], references: Sequence[Sequence[float]], weights: str
) -> list[float]:
    """Return d of each coin, in nats.

    Args:
        suspect: Its lean on each coin, in nats.
        references: For each coin the references' leans, in nats, always in the same order.
        weights: `fitted` or `one`.
    """
    count = len(references[0]) if references else 0
    if count == 0:
        return list(suspect)
    if weights == "one":
        return [u - sum(r) / count for u, r in zip(suspect, references, strict=True)]
    return _fitted(suspect, references, count)


def _fitted(suspect: Sequence[float], references: Sequence[Sequence[float]], k: int) -> list[float]:
    gram = [[0.0] * k for _ in range(k)]
    cross = [0.0] * k
    found: list[float] = []
    for i, (u, r) in enumerate(zip(suspect, references, strict=True), start=1):
        for a in range(k):
            cross[a] += u * r[a]
            for b in range(k):
                gram[a][b] += r[a] * r[b]
        ridge = RIDGE * max(sum(gram[a][a] for a in range(k)) / (k * i), _FLOOR)
        left = [[gram[a][b] + ridge * (a == b) for b in range(k)] for a in range(k)]
        weights = solve(left, [c + ridge / k for c in cross])
        found.append(u - sum(w * x for w, x in zip(weights, r, strict=True)))
    return found


def solve(left: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Solve a small linear system by elimination with the largest pivot.

    Raises:
        ZeroDivisionError: The system has no single solution.
    """
    rows = [[*row, value] for row, value in zip(left, right, strict=True)]
    size = len(rows)
    for at in range(size):
        best = max(range(at, size), key=lambda r: abs(rows[r][at]))
        rows[at], rows[best] = rows[best], rows[at]
        for other in range(at + 1, size):
            share = rows[other][at] / rows[at][at]
            rows[other] = [x - share * y for x, y in zip(rows[other], rows[at], strict=True)]
    found = [0.0] * size
    for at in reversed(range(size)):
        rest = sum(rows[at][j] * found[j] for j in range(at + 1, size))
        found[at] = (rows[at][size] - rest) / rows[at][at]
    return found
