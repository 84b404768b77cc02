"""A model on this machine that writes one answer, token by token, with a key-value cache."""

from collections.abc import Callable
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

from limbeck.errors import ScoringError
from limbeck.model import LocalModel
from limbeck.validate.respond import Asked
from limbeck.validate.timing import Usage


class LocalWriter:
    """Writes with a loaded model; owns nothing beyond it."""

    def __init__(self, local: LocalModel, *, max_new_tokens: int) -> None:
        self.name = local.name
        self._local = local
        self._max_new_tokens = max_new_tokens

    @torch.inference_mode()
    def write(self, asked: Asked, piece: Callable[[], None]) -> Usage:
        """Write the likeliest answer up to its end or `max_new_tokens`; `piece` is called for every token.

        Raises:
            ScoringError: The prompt leaves no room for an answer in the model's context.
        """
        ids = self._prompt(asked)
        context = getattr(self._local.model.config, "max_position_embeddings", None) or 1 << 62
        if not 1 <= len(ids) <= context - self._max_new_tokens:
            raise ScoringError(
                f"{asked.item} has {len(ids)} tokens, and with {self._max_new_tokens} for its answer {self.name} "
                f"reads {context} at the most"
            )
        tokens_BT = torch.tensor([ids], device=self._local.model.device)
        written_BT = self._local.model.generate(
            tokens_BT,
            attention_mask=torch.ones_like(tokens_BT),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=self._max_new_tokens,
            pad_token_id=self._local.tokenizer.eos_token_id or 0,
            streamer=_Watch(piece),
        )
        return Usage(len(ids), int(written_BT.shape[1]) - len(ids))

    def _prompt(self, asked: Asked) -> list[int]:
        tokenizer = self._local.tokenizer
        if asked.ask == "chat" and tokenizer.chat_template:
            turns = [message.as_dict() for message in asked.messages()]
            encoded = tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=True
            )
        else:
            opening = "" if asked.system is None else f"{asked.system}\n\n"
            encoded = tokenizer(opening + asked.prompt, verbose=False)
        return list(encoded["input_ids"])


class _Watch(BaseStreamer):
    """Passes on that a token has come; the first thing that a streamer hears of is the prompt."""

    def __init__(self, piece: Callable[[], None]) -> None:
        self._piece = piece
        self._begun = False

    def put(self, value: Any) -> None:
        """Hear of tokens."""
        if self._begun:
            self._piece()
        self._begun = True

    def end(self) -> None:
        """Hear that the answer is complete."""
