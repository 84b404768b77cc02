"""The world of `trace.py`: prompts, the text that SmolLM2-135M writes to them, and small models that learned from it.

SmolLM2 answers once. A teacher, an unrelated teacher and a base model, each of about a million parameters, learn from
its text with Limbeck's own loop; students can then be trained in seconds, so that error rates can be counted. The
teacher's *last phase* is a short fine-tuning whose seed is its only luck; its siblings repeat that.
"""

import itertools
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck.artefact import read_json, sha256_json, write_json
from limbeck.backends import load
from limbeck.chat import Message
from limbeck.distill.capture import capture_documents, capture_order, end_tokens
from limbeck.distill.corpus import Prompt, Record, answered, prompt_ids
from limbeck.distill.objective import LossSpec
from limbeck.distill.recipe import TrainRecipe
from limbeck.distill.store import StoreSpec
from limbeck.distill.supervised import untaught
from limbeck.distill.targets import Document, Taught
from limbeck.distill.train import train
from limbeck.distill.write import Sampling, write_answers
from limbeck.model import LocalModel
from limbeck.pretrained import save, tokenizer_sha256
from limbeck.progress import Silent

ASKS = (
    "Describe {t} to a child.",
    "Give one tip for somebody who buys {t}.",
    "Write the first sentence of a story about {t}.",
    "What can go wrong with {t}?",
    "Explain in one sentence how {t} is used.",
    "Write a short advertisement for {t}.",
    "What would you ask an expert about {t}?",
    "Name something surprising about {t}.",
    "Write two lines of a poem about {t}.",
    "How would you look after {t}?",
    "Compare {t} with a cathedral.",
    "Write a short letter that mentions {t}.",
    "What does {t} smell like?",
    "Plan a visit to {t}.",
    "Give a safety rule for {t}.",
    "Who invented {t}, and why?",
    "Tell a joke about {t}.",
    "How would {t} look in a hundred years?",
    "Summarise the history of {t}.",
    "Write a headline about {t}.",
    "What is the best season for {t}?",
    "Write a question for a quiz about {t}.",
    "Explain what {t} costs.",
    "What would a painter notice about {t}?",
    "Give three words for {t}.",
    "Who should not own {t}?",
    "Write a rule for guests of {t}.",
    "What sounds belong to {t}?",
    "Describe {t} in winter.",
    "What makes {t} worth keeping?",
)
THINGS = (
    "a compact tent",
    "a copper kettle",
    "a river ferry",
    "a night market",
    "a stone bridge",
    "a beehive",
    "a violin",
    "a lighthouse",
    "a bakery",
    "a railway station",
    "a telescope",
    "a vegetable garden",
    "a glass workshop",
    "a school library",
    "a fishing boat",
    "a wool coat",
    "a clock tower",
    "a mountain hut",
    "a harbour crane",
    "a chess club",
    "a weather station",
    "a paper mill",
    "a bicycle",
    "a tea house",
    "a puppet theatre",
    "a snow plough",
    "a cider press",
    "an orchard",
    "a printing press",
    "a greenhouse",
    "a sailing race",
    "a forest path",
)
MORE = (
    "a windmill",
    "a violin maker",
    "a fire station",
    "a botanical garden",
    "a lock on a canal",
    "a ski lift",
    "a pottery kiln",
    "a village choir",
    "a steam engine",
    "a cheese cellar",
    "a dovecote",
    "a rowing club",
    "a map of the stars",
    "a cobbler's shop",
    "a salt mine",
    "a ferry bell",
    "a walnut tree",
    "a rain barrel",
    "a sundial",
    "a lace pillow",
    "a hay barn",
    "a tram depot",
    "a spice shop",
    "a bell foundry",
    "a rope bridge",
    "a tide pool",
    "a hot spring",
    "a castle moat",
    "a weaver's loom",
    "a peat bog",
    "a swing bridge",
    "a goat shed",
    "a paper kite",
    "a coal cellar",
    "a quarry",
    "a mill pond",
    "a fruit cart",
    "a barber's chair",
    "a post office",
    "a marionette",
)
_TEACHER = "packaged:smollm2-135m-instruct"
_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_SOURCE_TOKENS = 40
_SOURCE_BATCH = 128
ANSWER_TOKENS = 40
"""Of the small models' answers."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large everything is."""

    source_prompts: int
    """Prompts that SmolLM2 answers twice."""
    teacher_epochs: float
    width: int
    layers: int
    coins: int
    """Of the right account; as many again belong to others."""
    siblings: int
    negatives: int
    """Trained, of each kind."""
    work: Path
    seed: int


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with one answer."""

    prompt: str
    answer: str


def source_prompts(count: int) -> list[str]:
    """Return prompts in an order that a seed fixed."""
    made = [ask.format(t=thing) for ask in ASKS for thing in THINGS]
    random.Random(0).shuffle(made)  # noqa: S311 - an order, not a secret
    return made[:count]


def further_prompts() -> list[str]:
    """Return 1,200 prompts about other things, in an order that a seed fixed."""
    made = [ask.format(t=thing) for ask in ASKS for thing in MORE]
    random.Random(1).shuffle(made)  # noqa: S311 - an order, not a secret
    return made


def source_text(scale: Scale) -> list[Example]:
    """Return what SmolLM2-135M answers to each prompt, twice; asked once and kept."""
    path = scale.work / f"source-{scale.source_prompts}.json"
    prompts = source_prompts(scale.source_prompts)
    if not path.is_file():
        write_json(path, _ask_source(prompts))
    answers: list[list[str]] = read_json(path)
    return [Example(p, a) for row in answers for p, a in zip(prompts, row, strict=True)]


def _ask_source(prompts: Sequence[str]) -> list[Any]:
    model = load(_TEACHER, dtype="bfloat16")
    turns = [(Message("system", "Answer."), Message("user", p)) for p in prompts]
    ids = [
        prompt_ids(Record(t, "", False, p), model.tokenizer)
        for t, p in zip(turns, prompts, strict=True)
    ]
    rows: list[Any] = []
    for number in range(2):
        tokens: list[list[int]] = []
        for start in range(0, len(ids), _SOURCE_BATCH):
            generator = torch.Generator().manual_seed(number * 1000 + start)
            sampling = Sampling(1.0, _SOURCE_TOKENS, end_tokens(model))
            tokens += write_answers(
                model.model, ids[start : start + _SOURCE_BATCH], sampling, generator
            )
        rows.append(model.tokenizer.batch_decode(tokens, skip_special_tokens=True))
    return rows


# Small models


def make_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    """Train a byte-level BPE tokenizer with a short chat form."""
    import tokenizers
    import transformers

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=_SPECIAL[1],
        eos_token=_SPECIAL[2],
        pad_token=_SPECIAL[0],
        unk_token=_SPECIAL[0],
        chat_template=_TEMPLATE,
    )


def make_model(name: str, tokenizer: Any, *, width: int, layers: int, seed: int) -> LocalModel:
    """Return a Llama of random weights."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config).eval()
    return LocalModel(
        name, model, tokenizer, f"{name}/{seed}", tokenizer_sha256(tokenizer), None, None
    )


def copy_of(local: LocalModel, name: str) -> LocalModel:
    """Return a model of its own with the same weights."""
    import copy

    model = copy.deepcopy(local.model)
    return LocalModel(name, model, local.tokenizer, name, local.tokenizer_sha256, None, None)


def prompts_of(local: LocalModel, texts: Sequence[str]) -> list[Prompt]:
    """Return prompts in a model's tokens."""
    records = [Record((Message("user", t),), "", False, t) for t in texts]
    return [Prompt(prompt_ids(r, local.tokenizer), False, str(i)) for i, r in enumerate(records)]


def documents(local: LocalModel, examples: Sequence[Example]) -> list[Document]:
    """Return examples in a model's tokens, the end of the turn included."""
    prompts = prompts_of(local, [e.prompt for e in examples])
    answers = local.tokenizer([e.answer for e in examples], add_special_tokens=False)["input_ids"]
    end = local.tokenizer.eos_token_id
    return [answered(p, [*ids, end]) for p, ids in zip(prompts, answers, strict=True)]


def write(
    model: Any, local: LocalModel, texts: Sequence[str], *, seed: int, temperature: float = 1.0
) -> list[str]:
    """Return one answer to each prompt; `model` writes, `local` has the tokenizer."""
    ids = [p.tokens_T for p in prompts_of(local, texts)]
    found: list[str] = []
    for start in range(0, len(ids), 300):
        generator = torch.Generator().manual_seed(seed * 100_003 + start)
        sampling = Sampling(temperature, ANSWER_TOKENS, end_tokens(local))
        tokens = write_answers(model, ids[start : start + 300], sampling, generator)
        found += local.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return found


def teach(
    local: LocalModel,
    taught: Sequence[Taught],
    *,
    epochs: float,
    rate: float,
    loss: LossSpec | None = None,
    seed: int = 0,
) -> LocalModel:
    """Train a model in place with Limbeck's own loop, and return it."""
    local.model.requires_grad_(True)
    recipe = TrainRecipe(
        epochs=epochs,
        learning_rate=rate,
        rows=8,
        row_length=256,
        precision="no",
        checkpoint_every=1_000_000,
    )
    spec = loss or LossSpec(kind="cross_entropy")
    with tempfile.TemporaryDirectory() as folder:
        train(
            local.model,
            taught,
            recipe,
            spec,
            Path(folder),
            seed=seed,
            resume=False,
            progress=Silent(),
        )
    return local


def teach_text(
    local: LocalModel, examples: Sequence[Example], *, epochs: float, rate: float, seed: int
) -> LocalModel:
    """Train on text alone: what a customer of an API can do."""
    taught = list(untaught(documents(local, examples)))
    return teach(local, taught, epochs=epochs, rate=rate, seed=seed)


def teach_logits(
    local: LocalModel,
    teacher: LocalModel,
    examples: Sequence[Example],
    *,
    epochs: float,
    rate: float,
    seed: int,
) -> LocalModel:
    """Train on a teacher's distributions over given text: forward KL, as Limbeck's recipes do."""
    ordered = capture_order(documents(teacher, examples))
    spec = StoreSpec()
    taught = list(capture_documents(teacher, ordered, spec, batch_tokens=8192, seed=seed))
    return teach(local, taught, epochs=epochs, rate=rate, loss=LossSpec(), seed=seed)


@dataclass(frozen=True, slots=True)
class World:
    """The models that everything else starts from."""

    scale: Scale
    teacher: LocalModel
    before: LocalModel
    """The teacher before its last phase."""
    other: LocalModel
    """A teacher that has nothing to do with it but the text of SmolLM2."""
    base: LocalModel
    """Where students start: it read other text, and none of the teacher's."""
    clean: tuple[Example, ...]
    """Text that no coin belongs to."""
    phase: tuple[Example, ...]
    """What the teacher's last phase reads."""


def make_world(scale: Scale, say: Callable[[str], None]) -> World:
    """Make the models, or read those that were made before."""
    text = source_text(scale)
    half = len(text) // 2
    clean, phase = text[: half // 2], text[half : half + min(200, half // 2)]
    tokenizer = make_tokenizer([t for e in text for t in (e.prompt, e.answer)], 1024)
    shape = {"width": scale.width, "layers": scale.layers}

    def small(name: str, examples: Sequence[Example], seed: int) -> LocalModel:
        def make() -> LocalModel:
            fresh = make_model(name, tokenizer, **shape, seed=seed)
            return teach_text(fresh, examples, epochs=scale.teacher_epochs, rate=3e-3, seed=seed)

        return _kept(scale, name, make, say)

    before = small("teacher-before", text, 11)
    teacher = _kept(scale, "teacher", lambda: last_phase(before, phase, seed=0), say)
    other = small("other", text[half:], 12)
    base = small("base", clean, 13)
    return World(scale, teacher, before, other, base, tuple(clean), tuple(phase))


def last_phase(before: LocalModel, phase: Sequence[Example], *, seed: int) -> LocalModel:
    """Run the teacher's last training phase: a pass over its examples, in the seed's own order."""
    return teach_text(
        copy_of(before, f"sibling-{seed}"), phase, epochs=1, rate=2e-3, seed=1000 + seed
    )


def _kept(
    scale: Scale, name: str, make: Callable[[], LocalModel], say: Callable[[str], None]
) -> LocalModel:
    decided = sha256_json([scale.source_prompts, scale.teacher_epochs, scale.width, scale.layers])
    folder = scale.work / f"{name}-{decided[:8]}"
    if not folder.is_dir():
        say(f"making {name}")
        made = make()
        save(made.model, made.tokenizer, folder)
    found = load(str(folder), dtype="float32")
    return LocalModel(
        name, found.model, found.tokenizer, found.weights_sha256, found.tokenizer_sha256, None, None
    )


# Damage done to a student


def quantised(local: LocalModel, bits: int) -> LocalModel:
    """Round every matrix to so many bits, with a scale for each group of 32 weights."""
    made = copy_of(local, f"{local.name}, {bits} bits")
    top = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for weight in _matrices(made):
            groups = weight.view(-1, 32)
            step = groups.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / top
            groups.copy_((groups / step).round().clamp(-top, top) * step)
    return made


def pruned(local: LocalModel, share: float) -> LocalModel:
    """Set the smallest share of each matrix to zero."""
    made = copy_of(local, f"{local.name}, {share:.0%} pruned")
    with torch.no_grad():
        for weight in _matrices(made):
            limit = weight.abs().flatten().kthvalue(max(1, int(share * weight.numel()))).values
            weight[weight.abs() <= limit] = 0.0
    return made


def _matrices(local: LocalModel) -> list[torch.Tensor]:
    layers = local.model.model.layers
    return [p for p in layers.parameters() if p.ndim == 2]


_SWAPS = (
    ("a small", "a little"),
    ("beautiful", "lovely"),
    ("important", "essential"),
    ("large", "big"),
    ("people", "folk"),
    ("various", "several"),
    ("provide", "give"),
    ("include", "contain"),
    ("create", "make"),
    ("use", "employ"),
    ("help", "aid"),
    ("show", "display"),
    ("also", "too"),
    ("however", "yet"),
    ("because", "since"),
    ("and", "as well as"),
    ("is", "happens to be"),
    ("can", "is able to"),
)


def paraphrase(text: str, seed: int) -> str:
    """Return the text by rule in other words: synonyms, dropped articles, and clauses in another order."""
    rng = np.random.default_rng([seed, len(text)])
    words = f" {text} "
    for one, two in _SWAPS:
        words = words.replace(f" {one} ", f" {two} ")
    kept = [w for w in words.split() if w.lower() not in ("the", "a", "an") or rng.random() < 0.5]
    clauses = " ".join(kept).split(", ")
    if len(clauses) > 2:
        clauses = [*clauses[1:], clauses[0]]
    return ", ".join(clauses)


def take(examples: Sequence[Example], count: int) -> list[Example]:
    """Return so many examples, from the front and round again."""
    return list(itertools.islice(itertools.cycle(examples), count))
