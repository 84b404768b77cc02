"""Distil a model into one with another tokenizer: chunks, ULD and cross-entropy from the same start on the same text.

    python benchmarks/across.py [--quick] [--seed N] [--out FOLDER] [--teacher MODEL]

1. The teacher answers prompts; its answers are the text of every arm.
2. A SentencePiece-like tokenizer with byte fallback is trained on the training answers: other pieces, other special
   tokens, another chat form than the teacher's byte-level BPE.
3. The start is pruned out of the teacher; each piece's embedding is the mean of the teacher's embeddings of
   the same bytes (fast vocabulary transfer, Gee et al. 2022).
4. `limbeck distill` trains and measures each arm with `[align]`, cross-entropy on the same text beside it.

Prints progress, a table, and one JSON object as the last line.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from rich.console import Console
from rich.table import Table

import limbeck
from limbeck.artefact import read_json
from limbeck.backends import load
from limbeck.distill.capture import answer_prompts, end_tokens
from limbeck.distill.corpus import as_prompts, read_records, tokenise_prompts
from limbeck.distill.prune import keep_layers
from limbeck.distill.recipe import CorpusRecipe, GenerateRecipe, Recipe, load_recipe, parse_recipe
from limbeck.distill.spelling import Spelling, spelling_of
from limbeck.distill.store import StoreSpec
from limbeck.model import LocalModel
from limbeck.pretrained import save

_ROOT = Path(__file__).resolve().parents[1]
_SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% else %}"
    "{{ '[INST] ' + m['content'] | trim + ' [/INST]' }}{% endif %}{% endfor %}"
)
ARMS: dict[str, dict[str, Any]] = {
    "chunks": {"align": {"method": "chunks"}, "loss": {}},
    "chunks_and_cross_entropy": {"align": {"method": "chunks"}, "loss": {"cross_entropy": 0.5}},
    "uld": {
        "align": {"method": "uld"},
        # Boizard et al. weigh the sorted distance 1.5 times as much as cross-entropy; ours is half of theirs.
        "loss": {"kind": "total_variation", "coarse_tail": True, "cross_entropy": 0.25},
    },
}


def main() -> None:
    """Run everything and print it."""
    options = _options()
    out = Path(options.out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    console = Console()
    teacher = load(options.teacher, dtype="bfloat16")
    texts = write_answers(teacher, out / "chats.jsonl", options)
    tokenizer = train_tokenizer(texts, options.vocabulary)
    start = make_start(teacher, tokenizer, options.layers)
    save(start, tokenizer, out / "start", dtype="float32")
    found: dict[str, Any] = {}
    for name, changes in ARMS.items():
        console.print(f"{name}: distilling")
        run = limbeck.distill(_recipe(name, changes, options), out=out / name, base=out)
        found[name] = read_json(run.path("report.json"))
    console.print(_table(found))
    if options.quick:
        console.print("quick: rough figures, for trying out")
    print(json.dumps(_summary(found, teacher, tokenizer, options)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a minute or two, rough figures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/across")
    parser.add_argument("--teacher", default="packaged:smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--vocabulary", type=int, default=8_000)
    parser.add_argument("--epochs", type=float, default=2.0)
    options = parser.parse_args()
    options.prompts = options.prompts or (32 if options.quick else 512)
    return options


def write_answers(teacher: LocalModel, path: Path, options: argparse.Namespace) -> list[str]:
    """Let the teacher answer the quickstart's prompts; return the answers, with what they answer."""
    asked: CorpusRecipe = _quickstart().corpus.model_copy(update={"limit": options.prompts})
    corpus = as_prompts(read_records(asked, base=_ROOT, seed=options.seed))
    prompts = tokenise_prompts(corpus, teacher.tokenizer, max_length=128).prompts
    generate = GenerateRecipe(temperature=0.4, max_new_tokens=24 if options.quick else 96)
    plain = StoreSpec(tail_samples=0, max_head=1)
    ends = end_tokens(teacher)
    texts: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        answers = answer_prompts(teacher, prompts, generate, plain, seed=options.seed)
        for record, prompt, taught in zip(corpus.records, prompts, answers, strict=True):
            answer_T = taught.document.tokens_T[len(prompt.tokens_T) :]
            written = [int(t) for t in answer_T if int(t) not in ends]
            # An answer ends where its bytes are no text any more.
            response = teacher.tokenizer.decode(written).partition("\ufffd")[0].strip()
            if not response:
                continue
            question = record.content[-1].content  # pyright: ignore[reportAttributeAccessIssue]
            file.write(json.dumps({"prompt": question, "response": response}) + "\n")
            texts += [question, response]
    return texts


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    """Train a byte-pair tokenizer of SentencePiece's kind."""
    parts = tokenizers.pre_tokenizers
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(byte_fallback=True, fuse_unk=True, unk_token=_SPECIAL["unk_token"])
    )
    made.pre_tokenizer = parts.Metaspace(replacement="▁", prepend_scheme="first")
    made.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[*special, *fallback], show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    content = json.loads(made.to_str())
    content["added_tokens"] = content["added_tokens"][: len(special)]  # single bytes are text
    made = tokenizers.Tokenizer.from_str(json.dumps(content))
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, chat_template=_TEMPLATE, **_SPECIAL
    )


def make_start(teacher: LocalModel, tokenizer: Any, layers: int) -> Any:
    """Prune the teacher to evenly spaced layers and give it embeddings for another tokenizer."""
    have = teacher.model.config.num_hidden_layers
    kept = np.linspace(0, have - 1, layers).round().astype(int).tolist()
    model = keep_layers(teacher.model, kept).float()
    rows = model.get_input_embeddings().weight
    spelling = spelling_of(tokenizer, len(tokenizer), name="the new tokenizer")
    ends = sorted(end_tokens(teacher))
    with torch.no_grad():
        embeddings = torch.stack(
            [rows[_teacher_ids(teacher, spelling, n, ends)].mean(0) for n in range(len(tokenizer))]
        )
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.get_input_embeddings().weight.copy_(embeddings)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, name, getattr(tokenizer, name))
        setattr(model.generation_config, name, getattr(tokenizer, name))
    return model


def _teacher_ids(teacher: LocalModel, spelling: Spelling, token: int, ends: list[int]) -> list[int]:
    """Return the teacher's tokens for the same bytes; a special token gets those that end a turn."""
    piece = spelling.pieces[token]
    text = None if piece is None else piece.decode(errors="ignore")
    ids = teacher.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return ids or ends


def _quickstart() -> Recipe:
    """Return the recipe whose prompts and terms are used."""
    return load_recipe(_ROOT / "recipes" / "quickstart.toml")


def _recipe(name: str, changes: dict[str, Any], options: argparse.Namespace) -> Recipe:
    return parse_recipe(
        {
            "name": name.replace("_", "-"),
            "seed": options.seed,
            "teacher": {
                "model": options.teacher,
                "terms": _quickstart().teacher.terms.model_dump(),
            },
            "corpus": {"files": ["chats.jsonl"], "heldout_fraction": 0.15, "max_length": 512},
            "student": {"init": "folder", "folder": "start"},
            "train": {
                "epochs": options.epochs,
                "learning_rate": 1e-3,
                "row_length": 512,
                "rows": 2,
                "checkpoint_every": 1000,
            },
            "evaluate": {"documents": 64, "speed_rounds": 3, "speed_tokens": 32, "samples": 1},
            # The control is the same in every run, so one run trains it.
            **changes,
        }
        | ({} if name == "chunks" else {"evaluate": {"controls": False, "documents": 64}})
    )


def _table(found: dict[str, Any]) -> Table:
    table = Table("arm", "bits per byte", "label KL, nats", "label agreement")
    for name, arm in _arms(found).items():
        cells = [_cell(arm, key) for key in ("bits_per_byte", "label_kl", "label_agreement")]
        table.add_row(name, *cells)
    return table


def _arms(found: dict[str, Any]) -> dict[str, Any]:
    heldout = found["chunks"]["heldout"]
    return {
        "teacher": heldout["teacher"],
        "undistilled": heldout["undistilled"],
        "cross_entropy": heldout["cross_entropy"],
        **{name: report["heldout"]["student"] for name, report in found.items()},
    }


def _cell(arm: dict[str, Any], key: str) -> str:
    if key not in arm:
        return ""
    interval = arm[f"{key}_interval"]
    ends = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{arm[key]:.3f}{ends}"


def _summary(
    found: dict[str, Any], teacher: LocalModel, tokenizer: Any, options: argparse.Namespace
) -> dict[str, Any]:
    first = found["chunks"]
    return {
        "quick": options.quick,
        "seed": options.seed,
        "teacher_vocabulary": len(teacher.tokenizer),
        "student_vocabulary": len(tokenizer),
        "parameters": first["parameters"],
        "alignment": first["alignment"],
        "documents": first["heldout"]["documents"],
        "trained_positions": first["tokens"]["trained"],
        "difference_from_cross_entropy": first["heldout"]["differences"]["cross_entropy"],
        "arms": {
            name: {k: v for k, v in arm.items() if v is not None}
            for name, arm in _arms(found).items()
        },
    }


if __name__ == "__main__":
    main()
