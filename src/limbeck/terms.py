"""What a teacher's licence or terms say about training another model on its outputs.

The table is a starting point for people, not legal advice: it says what Limbeck's authors read, where and when. Where
a permission hangs on the purpose (research, non-commercial use) or the authors are not certain, it says unknown,
and then the run waits until somebody who read the terms has written so into the recipe.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol

from limbeck.errors import TermsError

Answer = Literal["yes", "no", "unknown"]

TABLE_AS_OF = date(2026, 11, 24)
"""The day on which the table below was last gone through."""

_SPDX = "https://spdx.org/licenses/"
_NOT_A_LICENCE = frozenset({"", "other", "unknown", "none", "custom", "proprietary"})


@dataclass(frozen=True, slots=True)
class Licence:
    """What is known of one licence or one provider's terms."""

    name: str
    outputs_may_train: Answer
    basis: str
    """Why, in one sentence."""
    source: str
    """Where it is written."""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which terms a run used its teacher's outputs; goes into the manifest and the bill of materials."""

    licence: str | None
    outputs_may_train: Answer
    """What the terms themselves say, without `permission`."""
    basis: str
    """Why, in one sentence."""
    source: str | None
    """Where it is written; None where only a permission is known."""
    as_of: date | None
    """The day on which the source was read."""
    permission: str | None = None
    """Reference of a permission that goes beyond the terms."""

    def as_dict(self) -> dict[str, str | None]:
        """Return JSON values by field name."""
        return {
            "licence": self.licence,
            "outputs_may_train": self.outputs_may_train,
            "basis": self.basis,
            "source": self.source,
            "as_of": None if self.as_of is None else self.as_of.isoformat(),
            "permission": self.permission,
        }


class Statement(Protocol):
    """What a recipe says about its teacher's terms; a field that says nothing is None."""

    @property
    def licence(self) -> str | None: ...
    @property
    def outputs_may_train(self) -> bool | None: ...
    @property
    def source(self) -> str | None: ...
    @property
    def as_of(self) -> date | None: ...
    @property
    def permission(self) -> str | None: ...


def _open(*names: str) -> Iterable[Licence]:
    basis = (
        "An open licence that places no restriction on outputs; keep its notices with the weights."
    )
    return (Licence(name, "yes", basis, f"{_SPDX}{name}.html") for name in names)


def _llama(version: str, page: str) -> Licence:
    basis = (
        "Section 1.b.i allows it; a distributed student's name must begin with Llama, "
        "'Built with Llama' must be shown, and the agreement goes along."
    )
    compact = version.replace(" ", "")
    return Licence(
        f"Llama {version} Community License",
        "yes",
        basis,
        f"https://www.llama.com/{page}/license/",
        (f"llama{compact}", f"llama{compact}-community"),
    )


def _closed_llama(version: str, page: str) -> Licence:
    basis = (
        "Section 1.b.v forbids using outputs to improve any other large language model, except "
        f"Llama {version} and its derivatives."
    )
    return Licence(
        f"Llama {version} Community License",
        "no",
        basis,
        page,
        (f"llama{version}", f"llama{version}-community", f"Meta Llama {version} Community License"),
    )


def _rail(name: str, source: str, *aliases: str) -> Licence:
    basis = (
        "Claims no rights in outputs, but counts a model trained on them as a derivative, "
        "which must pass on the licence's use restrictions."
    )
    return Licence(name, "yes", basis, source, aliases)


def _purpose(name: str, purpose: str, source: str, *aliases: str) -> Licence:
    basis = f"Permitted for {purpose} only, and Limbeck cannot judge your purpose."
    return Licence(name, "unknown", basis, source, aliases)


def _service(name: str, source: str, *aliases: str) -> Licence:
    basis = (
        "The provider's terms forbid using the service to develop models that compete with it; "
        "whether yours does is for the provider to say."
    )
    return Licence(name, "no", basis, source, aliases)


KNOWN: tuple[Licence, ...] = (
    *_open("MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "0BSD", "Unlicense", "CC0-1.0"),
    Licence(
        "Apache-2.0",
        "yes",
        "An open licence that places no restriction on outputs; keep its notices with the weights.",
        f"{_SPDX}Apache-2.0.html",
        ("Apache License 2.0", "Apache License, Version 2.0", "Apache2", "Gemma 4 license"),
    ),
    Licence(
        "CC-BY-4.0",
        "yes",
        "Restricts no outputs; the teacher's authors must be credited.",
        "https://creativecommons.org/licenses/by/4.0/legalcode",
        ("CC BY",),
    ),
    Licence(
        "CC-BY-SA-4.0",
        "unknown",
        "Adaptations must be shared under the same licence, and whether a student is one is not settled.",
        "https://creativecommons.org/licenses/by-sa/4.0/legalcode",
    ),
    _purpose(
        "CC-BY-NC-4.0",
        "non-commercial purposes",
        "https://creativecommons.org/licenses/by-nc/4.0/legalcode",
    ),
    _purpose(
        "CC-BY-NC-SA-4.0",
        "non-commercial purposes",
        "https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode",
    ),
    _closed_llama("2", "https://ai.meta.com/llama/license/"),
    _closed_llama("3", "https://www.llama.com/llama3/license/"),
    _llama("3.1", "llama3_1"),
    _llama("3.2", "llama3_2"),
    _llama("3.3", "llama3_3"),
    _llama("4", "llama4"),
    Licence(
        "Gemma Terms of Use",
        "yes",
        "Section 1.1 counts a student distilled from outputs as a Model Derivative: section 3.1 has it carry "
        "these terms, their notice and the prohibited uses (Gemma 1 to 3; Gemma 4 is under Apache-2.0).",
        "https://ai.google.dev/gemma/terms",
        ("gemma", "Gemma License"),
    ),
    Licence(
        "Qwen License",
        "yes",
        "Allowed; a distributed student must show 'Built with Qwen' or 'Improved using Qwen'. Above 100 million "
        "monthly users a licence must be asked for.",
        "https://huggingface.co/Qwen/Qwen2.5-72B-Instruct/blob/main/LICENSE",
        ("qwen", "Qwen License Agreement"),
    ),
    _purpose(
        "Qwen Research License",
        "non-commercial purposes, with 'Built with Qwen' shown,",
        "https://huggingface.co/Qwen/Qwen2.5-3B/blob/main/LICENSE",
        "qwen-research",
        "Qwen Research License Agreement",
    ),
    Licence(
        "Tongyi Qianwen License",
        "no",
        "The agreement of 2023 forbids using outputs to improve any other large language model.",
        "https://github.com/QwenLM/Qwen/blob/main/Tongyi%20Qianwen%20LICENSE%20AGREEMENT",
        ("tongyi-qianwen", "Tongyi Qianwen License Agreement"),
    ),
    Licence(
        "Tencent Hunyuan Community License",
        "no",
        "Section 5(b) forbids using outputs to improve any other large language model.",
        "https://github.com/Tencent/Tencent-Hunyuan-Large/blob/main/LICENSE.txt",
        ("tencent-hunyuan-community", "tencent-hunyuan"),
    ),
    Licence(
        "Grok 2 Community License",
        "no",
        "Forbids using the model or its outputs to train or improve other models.",
        "https://huggingface.co/xai-org/grok-2/blob/main/LICENSE",
        ("grok-2",),
    ),
    Licence(
        "DeepSeek License",
        "yes",
        "Counts distillation as a derivative and allows it; the licence's use restrictions are passed on "
        "(newer DeepSeek models are under MIT).",
        "https://github.com/deepseek-ai/DeepSeek-V2/blob/main/LICENSE-MODEL",
        ("deepseek", "DeepSeek License Agreement", "DeepSeek Model License"),
    ),
    Licence(
        "NVIDIA Open Model License",
        "yes",
        "Claims no ownership of outputs and allows derivative models; its notice and guardrail clauses apply.",
        "https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/",
        ("nvidia-open-model-license", "nvidia-open-model", "NVIDIA Open Model License Agreement"),
    ),
    _purpose(
        "Mistral AI Research License",
        "research purposes",
        "https://mistral.ai/licenses/MRL-0.1.md",
        "mrl",
        "mistral-research",
        "MRL-0.1",
    ),
    _purpose(
        "Mistral AI Non-Production License",
        "non-production purposes",
        "https://mistral.ai/licenses/MNPL-0.1.md",
        "mnpl",
        "MNPL-0.1",
    ),
    Licence(
        "Falcon LLM License",
        "unknown",
        "The terms differ between versions and were not read for this table.",
        "https://falconllm.tii.ae/falcon-terms-and-conditions.html",
        ("falcon-llm-license", "TII Falcon LLM License"),
    ),
    _rail(
        "BigScience OpenRAIL-M",
        "https://bigscience.huggingface.co/blog/bigscience-openrail-m",
        "bigscience-openrail-m",
        "openrail-m",
    ),
    _rail(
        "BigScience BLOOM RAIL 1.0",
        "https://huggingface.co/spaces/bigscience/license",
        "bigscience-bloom-rail-1.0",
    ),
    _rail(
        "BigCode OpenRAIL-M",
        "https://huggingface.co/spaces/bigcode/bigcode-model-license-agreement",
        "bigcode-openrail-m",
    ),
    Licence(
        "OpenRAIL",
        "unknown",
        "A family of licences with different clauses; name the one that the teacher has.",
        "https://www.licenses.ai/ai-licenses",
    ),
    *(
        Licence(
            name,
            "unknown",
            "Whether copyleft on weights reaches a student of their outputs is not settled.",
            f"{_SPDX}{name}.html",
            (name.removesuffix("-only"), name.replace("only", "or-later")),
        )
        for name in ("GPL-2.0-only", "GPL-3.0-only", "AGPL-3.0-only", "LGPL-3.0-only")
    ),
    _service("OpenAI Terms of Use", "https://openai.com/policies/terms-of-use/", "openai"),
    _service(
        "Anthropic Commercial Terms",
        "https://www.anthropic.com/legal/commercial-terms",
        "anthropic",
        "Anthropic Terms",
        "Anthropic Consumer Terms",
    ),
    _service(
        "Gemini API Additional Terms of Service",
        "https://ai.google.dev/gemini-api/terms",
        "gemini",
        "gemini-api",
    ),
    _service("xAI Terms of Service", "https://x.ai/legal/terms-of-service-enterprise", "xai"),
    Licence(
        "Mistral AI Terms of Service",
        "unknown",
        "The terms differ between products and were not read in full for this table.",
        "https://legal.mistral.ai/terms",
        ("mistral-terms",),
    ),
    Licence(
        "Cohere Terms of Use",
        "unknown",
        "The terms were not read in full for this table.",
        "https://cohere.com/terms-of-use",
        ("cohere",),
    ),
)


def lookup(name: str | None) -> Licence | None:
    """Return what is known of a licence; case, spaces and punctuation do not matter."""
    return None if name is None else _BY_NAME.get(_plain(name))


def check_terms(
    stated: Statement, *, model_licence: str | None, teacher: str, today: date
) -> Terms:
    """Return the terms of a run, or refuse it, before anything is asked of the teacher.

    The recipe goes before the model's own files, and both go before the table. A permission lets a run go ahead
    whatever the terms say, and is recorded beside them.

    Args:
        stated: The recipe's `[teacher.terms]`.
        model_licence: The licence that the teacher's own files or package state, if any.
        teacher: The teacher's name, for messages.
        today: The current day.

    Raises:
        TermsError: The terms forbid the run, nothing is known of them, or the recipe contradicts what is known
            without a permission; the message ends with the lines to write into the recipe.
    """
    _check_fields(stated, teacher, today)
    own = None if _plain(model_licence or "") in _NOT_A_LICENCE else model_licence
    named = stated.licence or own
    known, own_known = lookup(named), lookup(own)
    if own_known is not None and own_known.outputs_may_train == "no":
        known = own_known  # a recipe's other name for it does not lift what the model itself states
    terms = _terms(stated, named, known)
    if stated.permission is not None:
        return terms
    if stated.outputs_may_train is False:
        raise _refusal(
            f"the recipe says that outputs of {teacher} may not train another model",
            named,
            today,
            "no",
        )
    if known is not None and known.outputs_may_train == "no":
        raise _refusal(
            f"{known.name}, the terms of {teacher}, does not allow training another model on its outputs: "
            f"{known.basis} ({known.source}, known {TABLE_AS_OF})",
            known.name,
            today,
            "no",
        )
    if stated.outputs_may_train is None and not _same(own, named):
        raise _refusal(
            f"the recipe says {named}, but the files of {teacher} say {own}",
            named,
            today,
            "unknown",
        )
    if named is None:
        raise _refusal(f"nothing says under which licence {teacher} is", None, today, "unknown")
    if terms.outputs_may_train == "unknown":
        why = known.basis if known is not None else "Limbeck does not know it."
        raise _refusal(
            f"it is unknown whether {named}, the licence of {teacher}, allows training another model on "
            f"its outputs: {why}",
            named,
            today,
            "unknown",
        )
    return terms


def _same(own: str | None, named: str | None) -> bool:
    """Tell whether two names mean one licence; a model that states none contradicts nothing."""
    if own is None or named is None or _plain(own) == _plain(named):
        return True
    known = lookup(own)
    return known is not None and known == lookup(named)


def _check_fields(stated: Statement, teacher: str, today: date) -> None:
    for field in ("licence", "source", "permission"):
        text: str | None = getattr(stated, field)
        if text is not None and not text.strip():
            raise TermsError(
                f"teacher.terms.{field} of {teacher} is blank: leave it out or fill it in"
            )
    if stated.as_of is not None and stated.as_of > today:
        raise TermsError(
            f"teacher.terms.as_of = {stated.as_of} lies in the future; write the day on which the terms were read"
        )
    missing = [f for f in ("source", "as_of") if getattr(stated, f) is None]
    if stated.outputs_may_train is True and missing:
        raise _refusal(
            f"teacher.terms.outputs_may_train = true needs {' and '.join(missing)}: where that is written, and "
            "when it was read",
            stated.licence,
            today,
            "unknown",
        )


def _terms(stated: Statement, named: str | None, known: Licence | None) -> Terms:
    if stated.outputs_may_train is not None:
        answer: Answer = "yes" if stated.outputs_may_train else "no"
        if known is not None and known.outputs_may_train == "no":
            answer = "no"
        basis = "The recipe says so."
    else:
        answer = "unknown" if known is None else known.outputs_may_train
        basis = "Nothing is known of these terms." if known is None else known.basis
    table = known is not None and stated.source is None
    return Terms(
        licence=named if known is None else known.name,
        outputs_may_train=answer,
        basis=basis,
        source=known.source if known is not None and table else stated.source,
        as_of=stated.as_of or (TABLE_AS_OF if table else None),
        permission=stated.permission,
    )


def _refusal(why: str, licence: str | None, today: date, answer: Answer) -> TermsError:
    # A JSON string is a TOML string too.
    name = json.dumps(licence or "the name of its licence", ensure_ascii=False)
    lines = ["[teacher.terms]", f"licence = {name}"]
    if answer == "no":
        advice = "If you were given a permission, write into the recipe:"
        lines.append('permission = "who gave it, when, and its reference"')
    else:
        advice = "Read the terms yourself; if they allow it, write into the recipe:"
        lines += [
            "outputs_may_train = true",
            'source = "address of the terms that you read"',
            f"as_of = {today.isoformat()}",
        ]
    return TermsError("\n".join([f"{why}. {advice}", *lines]))


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum() or c == ".")


_BY_NAME = {
    _plain(alias): licence for licence in KNOWN for alias in (licence.name, *licence.aliases)
}
