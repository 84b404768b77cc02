"""What a plan may allow beyond a plain answer."""

from typing import Final

LOGPROBS: Final = "logprobs"
LOGIT_BIAS: Final = "logit_bias"
MANY: Final = "n"
BEST_OF: Final = "best_of"
ECHO: Final = "echo"
PREFILL: Final = "prefill"
SEED: Final = "seed"
TEMPERATURE: Final = "temperature"
REASONING: Final = "reasoning"
STORED: Final = "stored"

CAPABILITIES: Final = {
    LOGPROBS: "log-probabilities of the answer's tokens (logprobs, top_logprobs)",
    LOGIT_BIAS: "a bias on chosen tokens (logit_bias)",
    MANY: "several answers to one request (n)",
    BEST_OF: "the best of several answers (best_of)",
    ECHO: "the prompt in front of the answer (echo)",
    PREFILL: "an answer that the caller begins (a last message from the assistant)",
    SEED: "repeatable sampling (seed)",
    TEMPERATURE: "temperatures above 1",
    REASONING: "the model's reasoning beside its answer",
    STORED: "answers that the upstream keeps and refers to (store, previous_response_id)",
}
"""Every capability with what it opens. A plan that lists none of them gets plain answers."""
