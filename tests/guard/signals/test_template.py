from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.signals.template import PACKED_BYTES, SAMPLE, Template
from tinytraffic import dice

SAMPLES = st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=SAMPLE), max_size=40)


def run(samples: list[list[int]]) -> tuple[Template, list[float]]:
    template = Template()
    return template, [template.step(sample) for sample in samples]


@settings(deadline=None)  # the machine may be busy
@given(SAMPLES)
def test_it_is_a_share_and_packs_to_a_fixed_size(samples: list[list[int]]) -> None:
    template, shares = run(samples)
    assert all(0 <= share <= 1 for share in shares)
    packed = template.pack()
    assert len(packed) == PACKED_BYTES
    assert Template.unpack(packed).pack() == packed


def test_one_template_is_seen_after_two_requests_and_for_ever() -> None:
    rng = dice(2)
    common = [rng.getrandbits(64) for _ in range(6)]
    _, shares = run([[*common, rng.getrandbits(64), rng.getrandbits(64)] for _ in range(5000)])
    assert shares[0] == 0.0
    assert min(shares[2:]) >= 0.75
    assert sum(shares[2:]) / len(shares[2:]) < 0.85


def test_texts_without_a_template_share_almost_nothing() -> None:
    rng = dice(3)
    _, shares = run([[rng.getrandbits(64) for _ in range(SAMPLE)] for _ in range(3000)])
    assert sum(shares) / len(shares) < 0.05
