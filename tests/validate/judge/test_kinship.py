import pytest

from limbeck.validate.judge.kinship import families, kin


@pytest.mark.parametrize(
    ("judge", "model"),
    [
        ("gpt-5-mini", "openai:gpt-4o"),
        ("o3-mini", "gpt-4.1"),
        ("claude-sonnet-5", "anthropic/claude-haiku-4"),
        ("SmolLM2-1.7B-Instruct", "packaged:smollm2-135m-instruct"),
        ("meta-llama/Llama-3.1-70B", "hf:org/TinyLlama-1.1B"),
        ("Qwen3-32B", "hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ("deepseek-chat", "hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ("kettle-judge", "/models/kettle-7b"),
        ("runs/mine/student", "runs/mine/student"),
    ],
)
def test_kin_is_known_by_name(judge: str, model: str) -> None:
    assert kin([judge], ["other", model]) is not None


@pytest.mark.parametrize(
    ("judge", "model"),
    [
        ("gpt-5", "claude-sonnet-5"),
        ("oracle", "packaged:smollm2-135m-instruct"),
        ("judge-2", "runs/quickstart/student"),
        ("student-judge", "/models/student"),
        ("mistral-large", "/llama/experiments/kettle"),
    ],
)
def test_strangers_are_no_kin(judge: str, model: str) -> None:
    assert kin([judge], [model]) is None


def test_a_distilled_model_has_two_families() -> None:
    assert families("DeepSeek-R1-Distill-Llama-8B") == {"DeepSeek", "Llama"}


def test_the_reason_names_both() -> None:
    reason = kin(["innocent", "gpt-5"], ["gpt-4o"])
    assert reason is not None
    assert "gpt-5" in reason
    assert "gpt-4o" in reason
