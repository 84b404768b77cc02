import pytest

from limbeck.errors import RunError
from limbeck.launch import Launch, alone, join, leads, size_of

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}


def test_a_process_that_was_started_alone_leads() -> None:
    assert size_of({}) == 1
    assert leads({})
    assert leads({"RANK": "0", "WORLD_SIZE": "1"})


def test_the_first_of_several_leads_and_the_others_follow() -> None:
    assert size_of(TORCHRUN) == 4
    assert not leads(TORCHRUN)
    assert leads(TORCHRUN | {"RANK": "0"})


def test_a_process_that_shall_not_take_part_hears_nothing_of_the_launch() -> None:
    kept = {"PATH": "/bin", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    assert alone(TORCHRUN | kept) == kept


def test_alone_there_is_nobody_to_call_or_to_hear() -> None:
    with join() as launch:
        assert (launch.leads, launch.size) == (True, 1)
        done: list[str] = []
        with launch.called("student"):
            done.append("student")
        launch.dismiss()
        assert done == ["student"]
    assert list(Launch(rank=1, size=2).calls()) == []


def test_a_launch_for_another_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(RunError, match="asks for DeepSpeed, which Limbeck does not use"), join():
        pass
