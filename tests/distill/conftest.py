"""A tiny teacher and what it said about a few texts, made for real."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.backends import load
from limbeck.distill.capture import capture_documents, capture_order
from limbeck.distill.store import StoreSpec
from limbeck.distill.targets import Document, Taught
from limbeck.model import LocalModel

TEXTS = 24
PIECE_SENTENCES = (
    "The mill by the river grinds flour for the town, and the miller counts the sacks.",
    "Say hello to the baker, say thanks to a friend, say goodbye and sorry to Anna.",
    "A kettle of copper stands on the stove; steam rises, and water drips into the bowl.",
    "Monday at noon we could meet at the bridge. Write a letter, or count to twelve.",
    "Der Käse kommt aus Köln, das Café schließt um acht, und die Wiese blüht.",
    "1. Mix the dough. 2. Heat the oven. 10. Wait, then stop.",
)
PIECE_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}{% elif message['role'] == 'system' %}"
    "{{ '<<SYS>> ' + message['content'] + ' <</SYS>> ' }}{% else %}"
    "{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
"""Llama 2's way: white space of the template around an answer, and no header in front of it."""


@pytest.fixture(scope="session")
def piece_tokenizer() -> Any:
    """A SentencePiece-like BPE with byte fallback that puts `<s>` before every text and trims answers."""
    import tokenizers
    import transformers

    parts = tokenizers.pre_tokenizers
    bpe = tokenizers.Tokenizer(
        tokenizers.models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    bpe.pre_tokenizer = parts.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    bpe.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=520, special_tokens=["<unk>", "<s>", "</s>", *fallback], show_progress=False
    )
    bpe.train_from_iterator(PIECE_SENTENCES, trainer)
    content = json.loads(bpe.to_str())
    # Only the first three are special: bytes are text.
    content["added_tokens"] = content["added_tokens"][:3]
    bpe = tokenizers.Tokenizer.from_str(json.dumps(content))
    bpe.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bpe.token_to_id("<s>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        chat_template=PIECE_TEMPLATE,
    )


@pytest.fixture(scope="session")
def tiny_teacher(tiny_teacher_folder: Path) -> LocalModel:
    """The tiny teacher, loaded; read it, never train it."""
    return load(str(tiny_teacher_folder), dtype="float32")


@pytest.fixture(scope="session")
def tiny_documents(tiny_teacher: LocalModel) -> list[Document]:
    """Seeded token sequences of different lengths, their first three tokens a prompt."""
    rng = np.random.default_rng(5)
    vocabulary = tiny_teacher.model.config.vocab_size
    documents: list[Document] = []
    for number in range(TEXTS):
        tokens_T = rng.integers(3, vocabulary, rng.integers(8, 30)).astype(np.int32)
        loss_T = np.ones(len(tokens_T), dtype=np.bool_)
        loss_T[[0, 1, -1]] = False
        documents.append(Document(tokens_T, loss_T, number % 6 == 0, f"{number:064x}"))
    return documents


@pytest.fixture(scope="session")
def tiny_taught(tiny_teacher: LocalModel, tiny_documents: list[Document]) -> list[Taught]:
    """What the tiny teacher said at every loss position."""
    spec = StoreSpec()
    ordered = capture_order(tiny_documents)
    return list(capture_documents(tiny_teacher, ordered, spec, batch_tokens=128, seed=0))
