"""ONNX graphs, as ONNX Runtime runs them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from limbeck.backends import load
from limbeck.errors import ExportError, MissingDependencyError
from limbeck.export.onnx_graph import write_onnx
from limbeck.model import LocalModel
from limbeck.pretrained import tokenizer_sha256

PROMPT = [5, 60, 70, 8, 200, 33]
Logits = Callable[[list[int]], npt.NDArray[np.float32]]


class Session:
    """ONNX Runtime with one graph; reads tokens one piece after another through its cache."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._past = {
            spec.name: np.zeros((1, spec.shape[1] if isinstance(spec.shape[1], int) else 2, 0, 16))
            for spec in self._session.get_inputs()
            if "past" in spec.name
        }
        self._read = 0

    def read(self, tokens: list[int]) -> npt.NDArray[np.float32]:
        """Return the logits after every one of some further tokens."""
        places = np.arange(self._read, self._read + len(tokens))
        feed = {name: past.astype(np.float32) for name, past in self._past.items()}
        feed |= {"input_ids": np.array([tokens]), "position_ids": places[None]}
        outputs = [spec.name for spec in self._session.get_outputs()]
        told = dict(zip(outputs, self._session.run(None, feed), strict=True))
        self._past = {name: told[name.replace("input.", "output.")] for name in self._past}
        self._read += len(tokens)
        return told["logits"][0]


LAYERS = 2
"""Of the tiny teacher's four: tracing takes seconds a layer, and two show that each has a cache of its own."""


def shallow(folder: Path) -> LocalModel:
    """The first layers of a model, with a configuration that says so."""
    local = load(str(folder), dtype="float32")
    del local.model.model.layers[LAYERS:]
    local.model.config.num_hidden_layers = LAYERS
    local.model.config.layer_types = None
    return local


@pytest.fixture
def tiny(tiny_teacher_folder: Path) -> LocalModel:
    """A model of its own for each test."""
    return shallow(tiny_teacher_folder)


@pytest.fixture(scope="module")
def graph(tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher as a graph; exporting takes seconds, so once for all."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("onnx")
    assert write_onnx(shallow(tiny_teacher_folder), folder, None) == ()
    return folder


def reference(model: Any) -> Logits:
    import torch

    def logits(tokens: list[int]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            return model(torch.tensor([tokens])).logits[0].numpy()

    return logits


def test_onnx_runtime_says_what_transformers_says_at_once_and_piece_by_piece(
    graph: Path, tiny: LocalModel
) -> None:
    theirs = reference(tiny.model)(PROMPT)
    np.testing.assert_allclose(Session(graph / "model.onnx").read(PROMPT), theirs, atol=1e-4)
    session = Session(graph / "model.onnx")
    pieces = [session.read(PROMPT[:3]), session.read(PROMPT[3:4]), session.read(PROMPT[4:])]
    np.testing.assert_allclose(np.concatenate(pieces), theirs, atol=1e-4)


def test_greedy_answers_are_those_of_transformers(
    graph: Path, tiny: LocalModel, by_transformers: Any
) -> None:
    session = Session(graph / "model.onnx")
    written = [int(session.read(PROMPT)[-1].argmax())]
    while len(written) < 10:
        written.append(int(session.read(written[-1:])[-1].argmax()))
    assert written == by_transformers.write(tiny.model, PROMPT, 10)


def test_the_folder_brings_configuration_and_tokenizer(graph: Path, tiny: LocalModel) -> None:
    assert AutoConfig.from_pretrained(graph).vocab_size == 400
    assert GenerationConfig.from_pretrained(graph).eos_token_id == 2
    tokenizer: Any = AutoTokenizer.from_pretrained(graph)
    assert tokenizer_sha256(tokenizer) == tiny.tokenizer_sha256


def test_exporting_changes_nothing_and_says_nothing(
    tiny: LocalModel, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With int8, which is smaller and further off, by little."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    before = reference(tiny.model)(PROMPT)
    write_onnx(tiny, tmp_path, "int8")
    assert capfd.readouterr() == ("", "")
    assert (reference(tiny.model)(PROMPT) == before).all()
    size = sum(p.stat().st_size for p in tmp_path.glob("model.onnx.data"))
    assert size < 0.3 * 4 * sum(p.numel() for p in tiny.model.parameters())
    error = np.abs(Session(tmp_path / "model.onnx").read(PROMPT) - before)
    assert 1e-4 < error.max() < 0.2 * before.std()


def test_a_model_that_cannot_be_traced_is_an_error(
    tiny: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(type(tiny.model), "forward", broken)
    with pytest.raises(ExportError, match=r"cannot trace LlamaForCausalLM: no such operator$"):
        write_onnx(tiny, tmp_path, None)


def test_without_a_package_the_install_command_is_named(
    tiny: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'limbeck\[onnx\]'"):
        write_onnx(tiny, tmp_path, None)
