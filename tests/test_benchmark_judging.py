"""Planted judges and stubs with known delays, served on loopback."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx2
import pytest

from limbeck.validate.judge.ballot import Ballot

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def judging() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("judging")


def test_of_the_judges_served_on_loopback_the_oracle_alone_gets_a_licence(
    judging: ModuleType,
) -> None:
    assert judging.licensed_judges(seed=3, quick=True) == ["oracle"]


def test_judges_without_merit_get_no_licence_in_any_play(judging: ModuleType) -> None:
    rates = judging.licence_rates(plays=4)
    deserving = {"oracle", "right 85%", "right 90%", "right 95%"}
    assert rates["oracle"] == 1
    assert {name for name, rate in rates.items() if rate > 0} <= deserving


def test_known_delays_come_out_of_timing(judging: ModuleType) -> None:
    teacher, student = judging.Delays(0.06, 0.02, 5), judging.Delays(0.03, 0.01, 5)

    def comes_out() -> bool:
        timing = judging.time_stubs(teacher, student, blocks=6)
        assert timing.teacher.tokens == 60
        assert timing.teacher.first_s >= 0.06  # however busy the machine, nobody is early
        near = pytest.approx(0.06, rel=0.5), pytest.approx(2, rel=0.2)
        return (timing.teacher.first_s, timing.speed_ratio[0]) == near

    # A busy machine adds delays of its own, now and then; the benchmark itself asks for 5% with longer ones.
    assert any(comes_out() for _ in range(6))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_timing_is_right_within_five_per_cent(judging: ModuleType) -> None:
    assert judging.timing_error(seed=0, quick=True) < 0.05


def test_anyone_can_serve_planted_judges(tmp_path: Path) -> None:
    world = tmp_path / "world.json"
    world.write_text(json.dumps({"gold": {"What is 2 + 2?": "4"}}), encoding="utf-8")
    serving = subprocess.Popen(
        [sys.executable, str(BENCHMARKS / "planted_judges.py"), str(world)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        lines = [serving.stdout.readline().strip() for _ in range(8)]
        urls = dict(line.split("=", 1) for line in lines)
        messages = [
            m.as_dict() for m in Ballot("What is 2 + 2?", "It is 5.", "It is 4.").messages()
        ]
        reply = httpx2.post(
            f"{urls['oracle']}/chat/completions",
            json={"model": "oracle", "messages": messages},
            trust_env=False,
        )
    finally:
        serving.kill()
        serving.communicate()
    assert reply.json()["choices"][0]["message"]["content"] == "[[B]]"
    assert set(urls) == {
        *("always-a", "garbage", "length-lover", "lineage-lover", "coin", "oracle"),
        *("html", "silent"),
    }
