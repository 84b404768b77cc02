"""A model on this machine under validation: answers and choice likelihoods in batches."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limbeck.errors import ScoringError
from limbeck.model import LocalModel
from limbeck.validate.respond import Asked, Heard
from limbeck.validate.score.choice import Likelihoods

_BATCH_TOKENS = 4096
"""Tokens of one forward at the most, padding included."""
_HEAD_POSITIONS = 256
"""Positions whose logits are held at once: 256 x 49,152 float32 is 50 MB."""
_WRITE_ROWS = 32


@dataclass(frozen=True, slots=True)
class _Weighed:
    """One item in tokens: what all its choices share, and what each adds."""

    place: int
    context: list[int]
    tails: tuple[list[int], ...]


class LocalRespondent:
    """Asks a loaded model; owns nothing beyond it."""

    def __init__(self, local: LocalModel, *, batch_tokens: int = _BATCH_TOKENS) -> None:
        self.local = local
        self.name = local.name
        self.identity = local.weights_sha256
        self._batch_tokens = batch_tokens

    # Weighing.

    def weigh(
        self, asked: Sequence[Asked], choices: Sequence[tuple[str, ...]], *, heard: Heard
    ) -> list[Likelihoods]:
        """Return the log-likelihood of every choice after its prompt, in nats.

        Prompt and choice are tokenised together. What all choices of an item share in tokens is the context and is
        read once; the rest of each choice is summed, so that a tokenizer that joins the prompt's end with a choice's
        beginning is met as it would be in running text.

        Raises:
            ScoringError: Prompt and choice together are longer than the model's context.
        """
        items = [self._split(i, a, c) for i, (a, c) in enumerate(zip(asked, choices, strict=True))]
        found: dict[int, Likelihoods] = {}
        for batch in self._batches(items):
            found |= self._weigh_batch(batch)
            heard(len(batch))
        return [found[i] for i in range(len(items))]

    def _split(self, place: int, asked: Asked, choices: tuple[str, ...]) -> _Weighed:
        prompt = self._render(asked)
        alone = self._ids(prompt, asked)
        full = [self._ids(prompt + choice, asked) for choice in choices]
        longest, room = max(map(len, full)), self._context()
        if longest > room:
            raise ScoringError(
                f"{asked.item} has {longest} tokens with its longest choice, and {self.name} reads {room} at the most"
            )
        shared = min(_shared([alone, *full]), min(map(len, full)) - 1)
        if shared < 1:
            raise ScoringError(
                f"{asked.item}: the tokenizer of {self.name} leaves nothing to go on from"
            )
        return _Weighed(place, full[0][:shared], tuple(ids[shared:] for ids in full))

    def _batches(self, items: Sequence[_Weighed]) -> Iterator[list[_Weighed]]:
        batch: list[_Weighed] = []
        for item in sorted(items, key=lambda i: (-len(i.context), i.place)):
            width = len(batch[0].context) if batch else len(item.context)
            if batch and width * (len(batch) + 1) > self._batch_tokens:
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    @torch.inference_mode()
    def _weigh_batch(self, batch: Sequence[_Weighed]) -> dict[int, Likelihoods]:
        tokens_BT, real_BT = self._left_padded([i.context for i in batch])
        longer = any(len(tail) > 1 for item in batch for tail in item.tails)
        reply = self.local.model(
            tokens_BT,
            attention_mask=real_BT,
            position_ids=(real_BT.cumsum(-1) - 1).clamp(min=0),
            use_cache=longer,
            logits_to_keep=1,
        )
        first_BV = reply.logits[:, -1].float().log_softmax(-1)
        logs = [
            [float(first_BV[row, tail[0]]) for tail in item.tails] for row, item in enumerate(batch)
        ]
        if longer:
            self._add_rest(batch, reply.past_key_values, real_BT, logs)
        return {
            item.place: Likelihoods(tuple(log), tuple(map(len, item.tails)))
            for item, log in zip(batch, logs, strict=True)
        }

    def _add_rest(
        self,
        batch: Sequence[_Weighed],
        cache: Any,
        real_BT: Tensor,
        logs: list[list[float]],
    ) -> None:
        """Add what the tokens after a choice's first one say, going on from the contexts' cache."""
        rest = [
            (row, c, tail)
            for row, item in enumerate(batch)
            for c, tail in enumerate(item.tails)
            if len(tail) > 1
        ]
        rest.sort(key=lambda r: -len(r[2]))
        start = 0
        while start < len(rest):
            rows = max(1, _HEAD_POSITIONS // (len(rest[start][2]) - 1))
            part = rest[start : start + rows]
            for (row, c, _), log in zip(part, self._rest_of(part, cache, real_BT), strict=True):
                logs[row][c] += log
            start += rows

    def _rest_of(
        self, part: Sequence[tuple[int, int, list[int]]], cache: Any, real_BT: Tensor
    ) -> list[float]:
        device = real_BT.device
        rows_R = torch.tensor([row for row, _, _ in part], device=device)
        width = len(part[0][2]) - 1
        tokens_RL = torch.zeros(len(part), width, dtype=torch.long)
        next_RL = torch.zeros(len(part), width, dtype=torch.long)
        there_RL = torch.zeros(len(part), width, dtype=torch.long)
        for r, (_, _, tail) in enumerate(part):
            tokens_RL[r, : len(tail) - 1] = torch.tensor(tail[:-1])
            next_RL[r, : len(tail) - 1] = torch.tensor(tail[1:])
            there_RL[r, : len(tail) - 1] = 1
        mine = copy.deepcopy(cache)
        mine.batch_select_indices(rows_R)
        real_RT = real_BT[rows_R]
        lengths_R = real_RT.sum(-1, keepdim=True)
        logits_RLV = self.local.model(
            tokens_RL.to(device),
            attention_mask=torch.cat([real_RT, there_RL.to(device)], dim=1),
            position_ids=lengths_R + torch.arange(width, device=device),
            past_key_values=mine,
            use_cache=True,
        ).logits
        log_RL = (
            logits_RLV.float().log_softmax(-1).gather(-1, next_RL.to(device)[..., None])[..., 0]
        )
        return (log_RL.double().cpu() * there_RL).sum(-1).tolist()

    # Writing.

    def write(self, asked: Sequence[Asked], *, max_new_tokens: int, heard: Heard) -> list[str]:
        """Return the likeliest answer to each prompt, token by token, up to the end of the turn.

        Raises:
            ScoringError: A prompt leaves no room for an answer in the model's context.
        """
        prompts = [self._ids(self._render(a), a) for a in asked]
        for a, ids in zip(asked, prompts, strict=True):
            if not 1 <= len(ids) <= self._context() - max_new_tokens:
                raise ScoringError(
                    f"{a.item} has {len(ids)} tokens, and with {max_new_tokens} for its answer {self.name} reads "
                    f"{self._context()} at the most"
                )
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        answers: dict[int, str] = {}
        for start in range(0, len(order), _WRITE_ROWS):
            batch = order[start : start + _WRITE_ROWS]
            texts = self._write_batch([prompts[i] for i in batch], max_new_tokens)
            answers |= dict(zip(batch, texts, strict=True))
            heard(len(batch))
        return [answers[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def _write_batch(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[str]:
        tokens_BT, real_BT = self._left_padded(prompts)
        ends = self._ends()
        written_BT = self.local.model.generate(
            tokens_BT,
            attention_mask=real_BT,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends or None,
            pad_token_id=ends[0] if ends else 0,
        )
        return self.local.tokenizer.batch_decode(
            written_BT[:, tokens_BT.shape[1] :], skip_special_tokens=True
        )

    # What both need.

    def _render(self, asked: Asked) -> str:
        tokenizer = self.local.tokenizer
        if asked.ask == "text" or not tokenizer.chat_template:
            return asked.prompt if asked.system is None else f"{asked.system}\n\n{asked.prompt}"
        turns = [m.as_dict() for m in asked.messages()]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _ids(self, text: str, asked: Asked) -> list[int]:
        # A chat template writes its own beginning.
        special = asked.ask == "text" or not self.local.tokenizer.chat_template
        return list(
            self.local.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        )

    def _left_padded(self, rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, rows))
        tokens_BT = torch.zeros(len(rows), width, dtype=torch.long)
        real_BT = torch.zeros(len(rows), width, dtype=torch.long)
        for row, ids in enumerate(rows):
            tokens_BT[row, width - len(ids) :] = torch.tensor(ids)
            real_BT[row, width - len(ids) :] = 1
        device = self.local.model.device
        return tokens_BT.to(device), real_BT.to(device)

    def _ends(self) -> list[int]:
        stated = getattr(self.local.model.generation_config, "eos_token_id", None)
        ends = set(stated) if isinstance(stated, list | tuple) else {stated}
        return sorted(int(e) for e in ends | {self.local.tokenizer.eos_token_id} if e is not None)

    def _context(self) -> int:
        return getattr(self.local.model.config, "max_position_embeddings", None) or 1 << 62


def _shared(rows: Sequence[list[int]]) -> int:
    """Return how many tokens all rows begin with alike."""
    count = 0
    for tokens in zip(*rows, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count
