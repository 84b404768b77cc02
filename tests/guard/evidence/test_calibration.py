import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from limbeck.errors import GuardError
from limbeck.guard.evidence.calibration import Calibration, Scorer, capped, load, save
from limbeck.guard.evidence.checkpoints import POINTS
from limbeck.guard.features import NAMES, SENSE

K, R, J, F = len(POINTS), 2, 3, len(NAMES)
FEATURES = arrays(np.float64, F, elements=st.floats(0, 1))


def scorer(seed: int = 0) -> Scorer:
    rng = np.random.default_rng(seed)
    weight_RJF = rng.uniform(0, 2, (R, J, F)) * np.array(SENSE)
    return Scorer(
        weight_RJF,
        rng.uniform(0, 1, (J, F)),
        rng.normal(size=(K, R, J)),
        rng.uniform(0.5, 2, (K, R, J)),
        rng.uniform(0, 2, J),
    )


def made() -> Calibration:
    return Calibration(
        ("chat", "agent"), {"own": scorer(1), "shared": scorer(2)}, (np.arange(20.0), np.arange(30.0)), 4.0, 99, 0.05, {"n": 1}
    )  # fmt: skip


@settings(deadline=None)  # the machine may be busy
@given(FEATURES, st.integers(0, K - 1))
def test_one_vector_is_scored_like_a_row(feature_F: np.ndarray, place: int) -> None:
    of = scorer()
    ways_RJ = of.ways(place, feature_F)
    rows_NRJ = of.rows(np.array([place, place]), np.stack([feature_F, feature_F]))
    assert np.allclose(rows_NRJ, ways_RJ)
    highest_R, less_R = of.score(place, feature_F)
    assert np.allclose(highest_R, ways_RJ.max(axis=1))
    assert np.allclose(less_R, (ways_RJ - of.margin_J).max(axis=1))


@settings(deadline=None)  # the machine may be busy
@given(FEATURES, st.integers(0, F - 1), st.floats(0, 1))
def test_pointing_further_towards_copying_never_lowers_a_score(
    feature_F: np.ndarray, at: int, more: float
) -> None:
    further_F = feature_F.copy()
    further_F[at] += more * SENSE[at]
    of = scorer()
    assert (of.ways(3, further_F) >= of.ways(3, feature_F) - 1e-9).all()


@settings(deadline=None)  # the machine may be busy
@given(FEATURES)
def test_beyond_the_cap_nothing_is_gained(feature_F: np.ndarray) -> None:
    of = scorer()
    extreme_F = np.where(np.array(SENSE) > 0, 1e6, -1e6)
    assert np.isfinite(of.ways(0, extreme_F)).all()
    assert (of.ways(0, extreme_F) >= of.ways(0, feature_F) - 1e-9).all()
    assert np.allclose(capped(extreme_F, of.cap_JF), of.cap_JF)


def test_the_parts_of_a_score_add_up_to_it() -> None:
    of, feature_F = scorer(), np.linspace(0, 1, F)
    way = int((of.ways(4, feature_F)[1] - of.margin_J).argmax())
    total = of.parts(4, feature_F, 1).sum() - of.centre_KRJ[4, 1, way] / of.scale_KRJ[4, 1, way]
    assert total - of.margin_J[way] == pytest.approx(of.score(4, feature_F)[1][1])


def test_evidence_is_that_against_the_best_rival_and_nothing_before_the_first_checkpoint() -> None:
    calibration = made()
    assert calibration.evidence(np.array([-np.inf, -np.inf])) == (0.0, 0)
    evidence, rival = calibration.evidence(np.array([1e6, -50.0]))
    assert rival == 1
    assert evidence < 1e-6
    assert calibration.evidence(np.array([1e6, 1e6]))[0] == pytest.approx(21.0)


def test_it_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    digest = save(made(), path)
    again = load(path, digest)
    assert again.rivals == made().rivals
    peak_R = np.array([25.0, 31.0])
    assert again.evidence(peak_R) == made().evidence(peak_R)
    feature_F = np.linspace(0, 1, F)
    assert np.array_equal(again.scorers["own"].score(5, feature_F), scorer(1).score(5, feature_F))


def test_a_changed_file_and_an_unexpected_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    save(made(), path)
    with pytest.raises(GuardError, match="it was changed"):
        load(path, "0" * 64)
    values = json.loads(path.read_text())
    values["alpha"] = 0.5
    path.write_text(json.dumps(values))
    with pytest.raises(GuardError, match="it was changed"):
        load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "not JSON"), ("[]", "no calibration"), ('{"kind": "x"}', "no calibration")],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(GuardError, match=said):
        load(tmp_path / "c.json")
    with pytest.raises(GuardError, match="cannot be read"):
        load(tmp_path / "none")
