"""A model's answer, piece by piece as it is written."""

from collections.abc import Iterator, Sequence
from typing import Any

from limbeck.chat import Message
from limbeck.errors import RecipeError, TeacherError
from limbeck.model import LocalModel

_INCOMPLETE = "\ufffd"


def stream_reply(
    local: LocalModel,
    messages: Sequence[Message],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> Iterator[str]:
    """Yield the text of an answer in pieces; joined, they are what decoding it at once gives.

    A character whose bytes lie in several tokens comes whole. The answer ends at an end token, at
    `max_new_tokens`, or where the model's context is full. Everything that can be refused is refused
    before the first piece is asked for.

    Args:
        local: The model; its chat template forms the prompt where it has one, otherwise the messages'
            text, line after line, is continued.
        messages: The conversation so far, at least one.
        max_new_tokens: Tokens at the most, at least 1.
        temperature: 0 takes the likeliest token; above it, tokens are drawn.
        seed: Seed of the draws.

    Raises:
        RecipeError: A number out of range.
        TeacherError: No message, a conversation that the template refuses, or one that fills the context.
    """
    if max_new_tokens < 1:
        raise RecipeError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if not 0 <= temperature < float("inf"):
        raise RecipeError(f"temperature must be 0 or above, got {temperature}")
    prompt = prompt_tokens(local, messages)
    room = _context(local) - len(prompt)
    if room < 1:
        raise TeacherError(
            f"the conversation has {len(prompt)} tokens and {local.name} reads {_context(local)} at the "
            "most; start a new one"
        )
    tokens = _draw(local, prompt, min(max_new_tokens, room), temperature, seed)
    return _pieces(local.tokenizer, tokens)


def prompt_tokens(local: LocalModel, messages: Sequence[Message]) -> list[int]:
    """Return the tokens that ask a model for the next message.

    Raises:
        TeacherError: There is no message or no text, or the chat template refuses the roles.
    """
    if not messages:
        raise TeacherError(f"{local.name} was asked without a message")
    tokenizer = local.tokenizer
    if not tokenizer.chat_template:
        text = "\n".join(message.content for message in messages)
        tokens = list(tokenizer(text)["input_ids"])
    else:
        tokens = _from_template(local, [message.as_dict() for message in messages])
    if not tokens:
        raise TeacherError(f"{local.name} was asked with an empty text")
    return tokens


def _from_template(local: LocalModel, conversation: list[dict[str, str]]) -> list[int]:
    from jinja2 import TemplateError

    try:
        encoded = local.tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, return_dict=True
        )
    except TemplateError as error:
        raise TeacherError(
            f"the chat template of {local.name} refuses the conversation: {error}"
        ) from error
    return list(encoded["input_ids"])


def end_tokens(local: LocalModel) -> frozenset[int]:
    """Return the tokens at which an answer ends."""
    stated = getattr(local.model.generation_config, "eos_token_id", None)
    ends = set(stated) if isinstance(stated, list | tuple) else {stated}
    return frozenset(int(e) for e in ends | {local.tokenizer.eos_token_id} if e is not None)


def _context(local: LocalModel) -> int:
    """Return how many tokens the model reads at the most; endless where it does not say."""
    return getattr(local.model.config, "max_position_embeddings", None) or 1 << 62


def _draw(
    local: LocalModel, prompt: list[int], limit: int, temperature: float, seed: int
) -> Iterator[int]:
    import torch

    model: Any = local.model
    generator = torch.Generator().manual_seed(seed)
    ends = end_tokens(local)
    ids_BT = torch.tensor([prompt], device=model.device)
    cache: Any = None
    for _ in range(limit):
        with torch.inference_mode():
            output = model(ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        logits_V = output.logits[0, -1].float().cpu()
        if temperature == 0:
            token = int(logits_V.argmax())
        else:
            probs_V = (logits_V / temperature).softmax(-1)
            token = int(torch.multinomial(probs_V, 1, generator=generator))
        if token in ends:
            return
        yield token
        ids_BT = torch.tensor([[token]], device=model.device)


def _pieces(tokenizer: Any, tokens: Iterator[int]) -> Iterator[str]:
    """Decode as far as whole characters go; what stays incomplete comes last, as decoding shows it."""
    seen: list[int] = []
    sent = text = ""
    for token in tokens:
        seen.append(token)
        text = tokenizer.decode(seen, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if len(text) > len(sent) and not text.endswith(_INCOMPLETE):
            yield text[len(sent) :]
            sent = text
    if len(text) > len(sent):
        yield text[len(sent) :]
