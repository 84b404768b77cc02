"""A model on this machine under audit: how likely texts are, and how likely given next tokens are.

Array letters: B rows of a batch, T positions, L positions from the right end, V vocabulary, C contexts, K candidates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from limbeck.errors import TraceError
from limbeck.model import LocalModel
from limbeck.trace.coins import Pair
from limbeck.trace.siblings import Contexts, Floats

_BATCH_TOKENS = 2048
"""Tokens of one forward at the most, padding included."""
_HEAD_POSITIONS = 768
"""Positions whose logits are held at once: 768 x 49,152 float32 is 150 MB."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One text in tokens, of which the last ones count."""

    place: int
    ids: list[int]
    count: int


class LocalWeigher:
    """Asks a loaded model; owns nothing beyond it."""

    def __init__(self, local: LocalModel) -> None:
        self.local = local
        self.name = local.name
        self.identity = local.weights_sha256

    def leans(self, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
        """Return the log-likelihoods of both answers of each pair after its prompt, in nats.

        The prompt is put as the model's own chat template puts it, and without one as it is, a line above the answer.
        Prompt and answer are tokenised together; what the prompt alone and both texts begin with alike is not counted.

        Raises:
            TraceError: A text is longer than the model's context.
        """
        rows = [row for place, pair in enumerate(pairs) for row in self._rows(place, pair)]
        sums = self._sums(rows)
        return [(sums[2 * place], sums[2 * place + 1]) for place in range(len(pairs))]

    def log_probs(self, contexts: Contexts) -> Floats:
        """Return log-probabilities [C, K] of the candidates after each context, in nats."""
        found_CK = np.empty(contexts.candidates_CK.shape)
        for rows, log_BV in self._last(contexts.texts):
            ids_BK = torch.from_numpy(contexts.candidates_CK[rows])
            found_CK[rows] = log_BV.gather(-1, ids_BK).double().numpy()
        return found_CK

    def likeliest(self, texts: Sequence[str], count: int) -> npt.NDArray[np.int64]:
        """Return the ids [C, K] of the `count` likeliest tokens after each text: how contexts get their candidates."""
        found_CK = np.empty((len(texts), count), np.int64)
        for rows, log_BV in self._last(texts):
            found_CK[rows] = log_BV.topk(count).indices.numpy()
        return found_CK

    # Texts into tokens.

    def _rows(self, place: int, pair: Pair) -> Iterator[_Row]:
        start = self._start(pair.prompt)
        alone, *full = (self._ids(start + answer) for answer in ("", pair.y0, pair.y1))
        shared = min(_shared([alone, *full]), *(len(ids) - 1 for ids in full))
        room = getattr(self.local.model.config, "max_position_embeddings", None) or 1 << 62
        if max(map(len, full)) > room or shared < 1:
            what = "nothing to go on from" if shared < 1 else f"more than its {room} tokens"
            raise TraceError(f"the coin {pair.hash.hex()[:16]}… leaves {self.name} {what}")
        for number, ids in enumerate(full):
            yield _Row(2 * place + number, ids, len(ids) - shared)

    def _start(self, prompt: str) -> str:
        if not self.local.tokenizer.chat_template:
            return f"{prompt}\n"
        turns = [{"role": "user", "content": prompt}]
        form = self.local.tokenizer.apply_chat_template
        return str(form(turns, tokenize=False, add_generation_prompt=True))

    def _ids(self, text: str) -> list[int]:
        # A chat template writes its own beginning.
        special = not self.local.tokenizer.chat_template
        return list(
            self.local.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        )

    # Tokens into likelihoods.

    @torch.inference_mode()
    def _sums(self, rows: Sequence[_Row]) -> dict[int, float]:
        found: dict[int, float] = {}
        for batch in _batches(sorted(rows, key=lambda r: (-len(r.ids), r.place))):
            last = max(row.count for row in batch)
            log_BLV = self._log_probs([row.ids for row in batch], last + 1)
            for row, log_LV in zip(batch, log_BLV, strict=True):
                said_L = torch.tensor(row.ids[-row.count :])
                log_L = log_LV[-row.count - 1 : -1].gather(-1, said_L[:, None])
                found[row.place] = float(log_L.double().sum())
        return found

    @torch.inference_mode()
    def _last(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield the distributions [B, V] after some texts at a time, with the texts' places."""
        rows = [_Row(i, self._ids(text), 1) for i, text in enumerate(texts)]
        for batch in _batches(sorted(rows, key=lambda r: (-len(r.ids), r.place))):
            yield [r.place for r in batch], self._log_probs([r.ids for r in batch], 1)[:, -1]

    def _log_probs(self, rows: Sequence[list[int]], last: int) -> Tensor:
        """Return log-probabilities [B, L, V] at the last positions of rows that end together."""
        width = max(map(len, rows))
        tokens_BT = torch.zeros(len(rows), width, dtype=torch.long)
        real_BT = torch.zeros(len(rows), width, dtype=torch.long)
        for row, ids in enumerate(rows):
            tokens_BT[row, width - len(ids) :] = torch.tensor(ids)
            real_BT[row, width - len(ids) :] = 1
        model: Any = self.local.model
        reply = model(
            tokens_BT.to(model.device),
            attention_mask=real_BT.to(model.device),
            position_ids=(real_BT.cumsum(-1) - 1).clamp(min=0).to(model.device),
            use_cache=False,
            logits_to_keep=last,
        )
        return reply.logits.float().log_softmax(-1).cpu()


def _batches(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    for row in rows:
        size = len(batch) + 1
        last = max(r.count for r in [*batch, row]) + 1
        if batch and (size * len(batch[0].ids) > _BATCH_TOKENS or size * last > _HEAD_POSITIONS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _shared(rows: Sequence[list[int]]) -> int:
    """Return how many tokens all rows begin with alike."""
    count = 0
    for tokens in zip(*rows, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count
