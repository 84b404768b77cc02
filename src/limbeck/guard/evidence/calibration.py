"""What `limbeck guard fit` learned: scores against each honest rival, and the honest histories that they are ranked among."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.artefact import sha256_json, write_json
from limbeck.errors import GuardError
from limbeck.guard.evidence.checkpoints import POINTS
from limbeck.guard.evidence.conformal import Doubles, Honest
from limbeck.guard.features import NAMES, SENSE

KINDS = ("own", "shared")
"""Whose requests a score is about: one account's, or all of a cluster."""
_POINTS_UP = np.array(SENSE) > 0
LEANS = 2.0
"""A cluster's evidence counts against an account whose own last score against that rival is above this."""
VERSION = 1
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores against every rival, in spreads of that rival's honest histories: linear, and capped feature by feature.

    A feature counts up to `cap_JF`, the value that nine in ten copiers of that way stay below (in the direction of its sense):
    going beyond what copiers do is no further evidence of copying, only of being something that nobody has seen.
    """

    weight_RJF: Doubles
    cap_JF: Doubles
    centre_KRJ: Doubles
    scale_KRJ: Doubles
    margin_J: Doubles
    """Taken off before evidence is ranked, for families that nobody has seen; see `check`."""

    def score(self, place: int, feature_F: Doubles) -> tuple[Doubles, Doubles]:
        """Return, per rival, the score towards the likeliest way of copying, and the same less the margins; [R] each."""
        way_RJ = self.ways(place, feature_F)
        return way_RJ.max(axis=1), (way_RJ - self.margin_J).max(axis=1)

    def ways(self, place: int, feature_F: Doubles) -> Doubles:
        """Return the score per rival and way of copying, before any margin; shape [R, J]."""
        raw_RJ = (self.weight_RJF * self._capped(feature_F)).sum(axis=2)
        return (raw_RJ - self.centre_KRJ[place]) / self.scale_KRJ[place]

    def rows(self, place_N: Ints, feature_NF: Doubles) -> Doubles:
        """Return the same for many vectors; shape [N, R, J]."""
        capped_NJF = self._capped(feature_NF[:, None, :])
        raw_NRJ = np.einsum("njf,rjf->nrj", capped_NJF, self.weight_RJF, optimize=True)
        return (raw_NRJ - self.centre_KRJ[place_N]) / self.scale_KRJ[place_N]

    def parts(self, place: int, feature_F: Doubles, rival: int) -> Doubles:
        """Return what each feature adds to the likeliest way's score against a rival; shape [F]."""
        way = int((self.ways(place, feature_F)[rival] - self.margin_J).argmax())
        return (
            self.weight_RJF[rival, way]
            * self._capped(feature_F)[way]
            / self.scale_KRJ[place, rival, way]
        )

    def _capped(self, feature_F: Doubles) -> Doubles:
        return capped(feature_F, self.cap_JF)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted guard: scorers hold the margin that unseen families take."""

    rivals: tuple[str, ...]
    scorers: Mapping[str, Scorer]
    """By kind."""
    peaks: tuple[Doubles, ...]
    """Per rival, the largest score of each honest history, ascending."""
    steepness: float
    horizon: int
    """Requests that the honest histories cover; alpha holds per so many requests of an account."""
    alpha: float
    report: Mapping[str, Any]

    honest: tuple[Honest, ...] = field(init=False)
    """What e-values need of `peaks`."""
    identity: str = field(init=False)
    """Tells it from any other: state that was scored by one calibration is of no use under another."""

    def __post_init__(self) -> None:
        """Sum the honest histories up once."""
        summed = tuple(Honest.of(peak_N, self.steepness) for peak_N in self.peaks)
        arrays = [
            a for s in self.scorers.values() for a in (s.weight_RJF, s.centre_KRJ, s.margin_J)
        ]
        digest = hashlib.blake2b(digest_size=16)
        for array in (*arrays, *self.peaks):
            digest.update(np.ascontiguousarray(array).tobytes())
        object.__setattr__(self, "honest", summed)
        object.__setattr__(self, "identity", digest.hexdigest())

    def evidence(self, peak_R: Doubles) -> tuple[float, int]:
        """Return the e-value against the rival that explains a history best, and which rival that is.

        Before the first checkpoint nothing is known and the e-value is 0.
        """
        e_R = [
            0.0 if peak == -math.inf else honest.e_value(peak)
            for peak, honest in zip(peak_R.tolist(), self.honest, strict=True)
        ]
        least = min(e_R)
        return least, e_R.index(least)


def capped(feature_F: Doubles, cap_JF: Doubles) -> Doubles:
    """Return features cut off where they point further towards copying than `cap_JF`; broadcasts."""
    return np.where(_POINTS_UP, np.minimum(feature_F, cap_JF), np.maximum(feature_F, cap_JF))


def save(calibration: Calibration, path: Path) -> str:
    """Write a calibration; return the hash of its content, which the file holds too."""
    values: dict[str, Any] = {
        "kind": "limbeck-guard-calibration",
        "version": VERSION,
        "features": list(NAMES),
        "checkpoints": list(POINTS),
        "rivals": list(calibration.rivals),
        "alpha": calibration.alpha,
        "horizon": calibration.horizon,
        "steepness": calibration.steepness,
        "peaks": [peaks.tolist() for peaks in calibration.peaks],
        "scorers": {
            kind: {
                "weight": scorer.weight_RJF.tolist(),
                "cap": scorer.cap_JF.tolist(),
                "centre": scorer.centre_KRJ.tolist(),
                "scale": scorer.scale_KRJ.tolist(),
                "margin": scorer.margin_J.tolist(),
            }
            for kind, scorer in calibration.scorers.items()
        },
        "report": dict(calibration.report),
    }
    values["sha256"] = sha256_json(values)
    write_json(path, values)
    return str(values["sha256"])


def load(path: Path, sha256: str | None = None) -> Calibration:
    """Read a calibration.

    Args:
        path: What `save` wrote.
        sha256: The content's hash that is expected; None takes what the file says of itself.

    Raises:
        GuardError: It is missing, damaged, another than expected, or made for other features.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GuardError(f"calibration {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # no JSON, or not even text
        raise GuardError(f"calibration {path} is not JSON: {error}") from None
    if not isinstance(values, dict) or values.get("kind") != "limbeck-guard-calibration":
        raise GuardError(f"{path} is no calibration; make one with `limbeck guard fit`")
    said = values.pop("sha256", None)
    found = sha256_json(values)
    if found != said or (sha256 is not None and found != sha256):
        raise GuardError(
            f"calibration {path} has the hash {found}, expected {sha256 or said}: it was changed"
        )
    made_for = (values["version"], tuple(values["features"]), tuple(values["checkpoints"]))
    if made_for != (VERSION, NAMES, POINTS):
        raise GuardError(f"calibration {path} was made for other features; fit it again")
    return _calibration(values)


def _calibration(values: Mapping[str, Any]) -> Calibration:
    return Calibration(
        rivals=tuple(values["rivals"]),
        scorers={
            kind: Scorer(
                *(np.array(of[name]) for name in ("weight", "cap", "centre", "scale", "margin"))
            )
            for kind, of in values["scorers"].items()
        },
        peaks=tuple(np.array(peaks) for peaks in values["peaks"]),
        steepness=float(values["steepness"]),
        horizon=int(values["horizon"]),
        alpha=float(values["alpha"]),
        report=values["report"],
    )
