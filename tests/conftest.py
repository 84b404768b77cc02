"""What tests share: a model small enough to run everything for real in a second."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

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
VOCABULARY = 400
START, END, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
PIECE_SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}


# A busy machine must fail no test: how long an example takes is no law.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


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
def piece_tokenizer() -> Any:
    """A SentencePiece-like BPE with byte fallback that puts `<s>` before every text and trims answers."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    parts = tokenizers.pre_tokenizers
    bpe = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            byte_fallback=True, fuse_unk=True, unk_token=PIECE_SPECIAL["unk_token"]
        )
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
        chat_template=PIECE_TEMPLATE,
        **PIECE_SPECIAL,
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
