"""What `limbeck guard fit` learned: scores against each honest rival, and the honest histories that they are ranked among."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.artefact import sha256_json, write_json
from limbeck.errors import GuardError
from limbeck.guard.evidence.checkpoints import POINTS
from limbeck.guard.evidence.conformal import Doubles, e_value
from limbeck.guard.features import NAMES

KINDS = ("own", "shared")
"""Whose requests a score is about: one account's, or all of a cluster."""
VERSION = 1


@dataclass(frozen=True, slots=True)
class Scorer:
    """Linear scores against every rival, in standard deviations of that rival's honest histories."""

    weight_RJF: Doubles
    centre_KRJ: Doubles
    scale_KRJ: Doubles

    def score(self, place: int, feature_F: Doubles) -> Doubles:
        """Return, per rival, the score towards the likeliest way of copying; shape [R]."""
        raw_RJ = self.weight_RJF @ feature_F
        return ((raw_RJ - self.centre_KRJ[place]) / self.scale_KRJ[place]).max(axis=1)

    def parts(self, place: int, feature_F: Doubles, rival: int) -> Doubles:
        """Return what each feature adds to the likeliest way's score against a rival; shape [F]."""
        raw_J = self.weight_RJF[rival] @ feature_F
        way = int(((raw_J - self.centre_KRJ[place, rival]) / self.scale_KRJ[place, rival]).argmax())
        return self.weight_RJF[rival, way] * feature_F / self.scale_KRJ[place, rival, way]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted guard: `peaks_N` are the honest histories of each rival, `margins_R` what unseen families cost."""

    rivals: tuple[str, ...]
    scorers: Mapping[str, Scorer]
    """By kind."""
    peaks: tuple[Doubles, ...]
    """Per rival, the largest score of each honest history, ascending."""
    margins_R: Doubles
    """Taken off every score before it is ranked."""
    steepness: float
    horizon: int
    """Requests that the honest histories cover; alpha holds per so many requests of an account."""
    alpha: float
    report: Mapping[str, Any]

    def e_values(self, peak_R: Doubles) -> Doubles:
        """Return the e-value against each rival."""
        return np.array(
            [
                e_value(float(peak - margin), honest_N, self.steepness) if peak > -np.inf else 0.0
                for peak, margin, honest_N in zip(peak_R, self.margins_R, self.peaks, strict=True)
            ]
        )


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
        "margins": calibration.margins_R.tolist(),
        "peaks": [peaks.tolist() for peaks in calibration.peaks],
        "scorers": {
            kind: {
                "weight": scorer.weight_RJF.tolist(),
                "centre": scorer.centre_KRJ.tolist(),
                "scale": scorer.scale_KRJ.tolist(),
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
    except json.JSONDecodeError as error:
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
            kind: Scorer(*(np.array(of[name]) for name in ("weight", "centre", "scale")))
            for kind, of in values["scorers"].items()
        },
        peaks=tuple(np.array(peaks) for peaks in values["peaks"]),
        margins_R=np.array(values["margins"]),
        steepness=float(values["steepness"]),
        horizon=int(values["horizon"]),
        alpha=float(values["alpha"]),
        report=values["report"],
    )
