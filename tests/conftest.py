"""What tests share: a model small enough to run everything for real in a second."""

from pathlib import Path
from typing import Any

import pytest

SENTENCES = (
    "The river runs past the mill and under the old stone bridge.",
    "A baker weighs flour, water and salt before the town wakes up.",
    "In 1850 the station had 12 clocks, and no two of them agreed.",
    "Copper kettles shine on the shelf; the still is warm and drips slowly.",
    "Dear Anna, thank you for the letter. Could we meet on Monday at noon?",
    "Grüße aus Köln: der Käse schmeckt nach Wiese, und das Café öffnet um acht.",
    "def area(width, height):\n    return width * height\n",
    "1. Heat the oven.\n2. Mix the dough.\n\n10. Let it cool.",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCABULARY = 400
START, END, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Compute with one thread: for tensors this small, handing work to a second costs more than it saves."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer with SmolLM2's special tokens and chat form."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    parts = tokenizers.pre_tokenizers
    bpe.pre_tokenizer = parts.Sequence(
        [parts.Digits(individual_digits=True), parts.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[UNKNOWN, START, END],
        initial_alphabet=sorted(parts.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="session")
def tiny_teacher_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A `transformers` folder: Llama, 4 layers of width 64, random but seeded weights in float32.

    It is shared by all tests of a session: read it, never write into it.
    """
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.1,  # wide enough that the distributions are not flat
        bos_token_id=tiny_tokenizer.bos_token_id,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(17)
        model = transformers.LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("models") / "tiny-teacher"
    # Not through limbeck: a test must be able to fail where limbeck saves wrongly.
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    return folder
