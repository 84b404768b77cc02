"""GGUF files, as llama.cpp and transformers read them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from limbeck.distill.bpe import read_bpe
from limbeck.distill.recipe import StudentRecipe
from limbeck.distill.student import build_student
from limbeck.distill.vocabulary import Vocabulary
from limbeck.errors import ExportError, MissingDependencyError
from limbeck.export.gguf_file import write_gguf
from limbeck.model import LocalModel

Start = Callable[[Path], Any]
PROMPT = "The river runs past the old mill: 12 Käse."
SIZES: dict[str, Any] = {
    "vocab_size": 405,  # five rows past the tokenizer's tokens
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=False)),
    "llama_tied": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama_wide_heads": (LlamaForCausalLM, LlamaConfig(**SIZES, head_dim=32)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=32)),
}


def of(family: str, tiny: LocalModel) -> LocalModel:
    kind, config = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = kind(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias") or "norm" in name:  # they start as 0 and 1, and would hide
                    parameter.add_(torch.randn_like(parameter) * 0.2)
    return replace(tiny, model=model)


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_says_of_every_token_what_transformers_says(
    family: str, tiny: LocalModel, llama_cpp: Start, by_transformers: Any, tmp_path: Path
) -> None:
    local = of(family, tiny)
    assert write_gguf(local, tmp_path / "m.gguf", None) == ()
    engine = llama_cpp(tmp_path / "m.gguf")
    tokens = tiny.tokenizer(PROMPT)["input_ids"]
    ours = engine.log_probs(tokens, 405)
    np.testing.assert_allclose(ours, by_transformers.log_probs(local.model, tokens), atol=2e-3)
    assert engine.write(tokens, 8) == by_transformers.write(local.model, tokens, 8)


def test_llama_cpp_reads_text_into_the_same_tokens(
    tiny: LocalModel, llama_cpp: Start, tmp_path: Path
) -> None:
    write_gguf(tiny, tmp_path / "m.gguf", None)
    engine = llama_cpp(tmp_path / "m.gguf")
    chat = tiny.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Grüße! 1850: don't\n\n  go."}],
        tokenize=False,
        add_generation_prompt=True,
    )
    for text in (PROMPT, chat, "def area(width):\n    return 3.14", "naïve 日本語 🙂 \t x"):
        assert engine.tokenize(text) == tiny.tokenizer(text)["input_ids"]


def test_a_trimmed_student_runs_in_llama_cpp(
    tiny: LocalModel, llama_cpp: Start, by_transformers: Any, tmp_path: Path
) -> None:
    bpe = read_bpe(tiny.tokenizer)
    used = set(tiny.tokenizer(PROMPT)["input_ids"])
    kept = np.array(sorted(bpe.closure(used | bpe.required())))
    recipe = StudentRecipe(init="folder", folder="x")
    student = build_student(
        recipe, tiny, [], seed=0, folder_model=tiny, vocabulary=Vocabulary(kept, 400)
    )
    local = replace(tiny, model=student.model, tokenizer=student.tokenizer)
    write_gguf(local, tmp_path / "m.gguf", None)
    engine = llama_cpp(tmp_path / "m.gguf")
    tokens = engine.tokenize(PROMPT)
    assert tokens == student.tokenizer(PROMPT)["input_ids"]
    assert engine.write(tokens, 8) == by_transformers.write(student.model, tokens, 8)


@pytest.mark.parametrize("quantise", ["f16", "bf16", "q8_0", "q5_0", "q4_0"])
def test_fewer_bits_mean_more_error_and_a_smaller_file(
    quantise: str, tiny: LocalModel, tmp_path: Path
) -> None:
    """Read back by `transformers`, whose dequantiser is not the code that quantised."""
    path = tmp_path / "m.gguf"
    write_gguf(tiny, tmp_path / "whole.gguf", "f32")
    write_gguf(tiny, path, quantise)
    assert path.stat().st_size < (tmp_path / "whole.gguf").stat().st_size
    read: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="m.gguf",
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    worst = {"f16": 1e-3, "bf16": 4e-3, "q8_0": 8e-3, "q5_0": 0.05, "q4_0": 0.13}
    before, after = tiny.model.state_dict(), read.state_dict()
    for name, tensor in before.items():
        error = (after[name] - tensor).norm() / tensor.norm()
        bound = worst["q8_0" if "embed" in name or "lm_head" in name else quantise]
        assert error <= (0 if tensor.ndim == 1 else max(bound, worst["f16"])), name
    down = "model.layers.0.mlp.down_proj.weight"
    relative = (after[down] - before[down]).norm() / before[down].norm()
    assert relative > worst[quantise] / 20


def test_bfloat16_weights_stay_bfloat16(tiny: LocalModel, tmp_path: Path) -> None:
    import gguf

    half = replace(tiny, model=tiny.model.bfloat16())
    write_gguf(half, tmp_path / "m.gguf", None)
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == "BF16"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


def test_rows_that_no_block_fits_are_kept_and_told(tiny: LocalModel, tmp_path: Path) -> None:
    sizes: dict[str, Any] = SIZES | {"intermediate_size": 90}
    config = LlamaConfig(**sizes)
    odd = replace(tiny, model=LlamaForCausalLM(config).eval())
    (note,) = write_gguf(odd, tmp_path / "m.gguf", "q4_0")
    assert "2 tensors, blk.0.ffn_down.weight among them" in note


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "knows llama, mistral, qwen2, qwen3, and this model is gpt2"),
        ({"hidden_act": "gelu"}, "the activation gelu"),
        ({"attention_bias": True}, "biases in its attention"),
        ({"mlp_bias": True}, "biases in its feed-forward"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "rotary scaling yarn"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "within a window"),
    ],
)
def test_what_llama_cpp_would_read_otherwise_is_refused(
    changes: dict[str, Any], words: str, tiny: LocalModel, tmp_path: Path
) -> None:
    for name, value in changes.items():
        setattr(tiny.model.config, name, value)
    with pytest.raises(ExportError, match=words):
        write_gguf(tiny, tmp_path / "m.gguf", None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "splitter",
    [
        pre_tokenizers.Whitespace(),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(False)]
        ),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(
    splitter: Any, tiny: LocalModel, tmp_path: Path
) -> None:
    other = Tokenizer.from_str(tiny.tokenizer.backend_tokenizer.to_str())
    other.pre_tokenizer = splitter
    local = replace(tiny, tokenizer=PreTrainedTokenizerFast(tokenizer_object=other))
    with pytest.raises(ExportError, match="split text as smollm, gpt-2, llama-bpe, qwen2 do"):
        write_gguf(local, tmp_path / "m.gguf", None)


def test_known_patterns_are_told_apart(tiny: LocalModel, tmp_path: Path) -> None:
    """The patterns of Llama 3 and Qwen 2, written out as their tokenizers have them."""
    import gguf

    llama3 = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    for name, pattern in (("llama-bpe", llama3), ("qwen2", llama3.replace("{1,3}", ""))):
        other = json.loads(tiny.tokenizer.backend_tokenizer.to_str())
        split = {
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": False,
        }
        level = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        }
        other["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(other)))
        path = tmp_path / f"{name}.gguf"
        write_gguf(replace(tiny, tokenizer=tokenizer), path, None)
        field = gguf.GGUFReader(path).get_field("tokenizer.ggml.pre")
        assert field is not None
        assert field.contents() == name


def test_without_the_package_the_install_command_is_named(
    tiny: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'limbeck\[gguf\]'"):
        write_gguf(tiny, tmp_path / "m.gguf", None)
