"""The deliberate errors, drawn as a tree.

LimbeckError                 one clear sentence for the user; the CLI prints it and exits with `exit_code`
├── RecipeError              a recipe key, type, range or combination
├── CorpusError              a missing, empty or malformed corpus; names the line
├── TermsError               the teacher's terms forbid the run, or are not known
├── TeacherError             a teacher that cannot be reached, loaded or asked
│   ├── RefusedError         a server that says no: key, payment, permission or quota
│   └── BudgetError          the next request could cost more than the recipe allows
├── StudentError             a student that cannot be built, loaded or saved
├── ExportError              a student that a format cannot hold, or a place it cannot be written to
├── TokenizerMismatchError   teacher and student read text differently
├── LossError                a loss or temperature that the targets cannot support
├── StoreError               targets on disk that are missing, foreign or damaged; names the shard
├── RunError                 a run folder that is not this recipe's, or lacks what a step needs
├── FilterError              a filter that keeps nothing, or a verifier that cannot decide
├── TrainingError            a non-finite loss; names the step, the batch and the last good checkpoint
├── TaskError                a test set that is missing, empty or malformed; names the line
├── ScoringError             a model that cannot be scored as a task asks
├── JudgeError               a judge that cannot be named, or answers that cannot be compared
├── GuardError               a gateway, policy or traffic log that cannot be used; names the key or line
│   └── AccountError         an account, key, organisation, plan or use that is unknown or not allowed
├── LedgerError              a record, proof, key or bundle that is missing, foreign or does not verify
├── TraceError               coins, a suspect or a reference that an audit cannot use
└── MissingDependencyError   an optional package; names the install command
"""

from typing import ClassVar


class LimbeckError(Exception):
    """Something the user can mend: its message names the thing, its value and what would be right."""

    exit_code: ClassVar[int] = 1


class RecipeError(LimbeckError):
    """A recipe key, type, range or combination that cannot be run."""

    exit_code = 2


class CorpusError(LimbeckError):
    """A corpus that is missing, empty or malformed."""


class TermsError(LimbeckError):
    """The teacher's terms forbid training on its outputs, or nothing is known of them."""

    exit_code = 3


class TeacherError(LimbeckError):
    """A teacher that cannot be reached, loaded or asked."""


class RefusedError(TeacherError):
    """A server that says no to us: to the key, the payment, the permission or the quota. It is obeyed."""


class BudgetError(TeacherError):
    """The next request could cost more than the recipe allows."""


class StudentError(LimbeckError):
    """A student that cannot be built, loaded or saved."""


class ExportError(LimbeckError):
    """A student that a format cannot hold, or a place that it cannot be written to."""


class TokenizerMismatchError(LimbeckError):
    """Teacher and student turn the same text into different tokens."""


class LossError(LimbeckError):
    """A loss or temperature that the targets cannot support."""


class StoreError(LimbeckError):
    """Targets on disk that are missing, foreign or damaged."""


class RunError(LimbeckError):
    """A run folder that belongs to another recipe, or lacks what a step needs."""


class FilterError(LimbeckError):
    """A filter that keeps nothing, or a verifier that cannot decide."""


class TrainingError(LimbeckError):
    """Training that cannot go on, such as a non-finite loss."""


class TaskError(LimbeckError):
    """A task that is missing, empty or malformed."""


class ScoringError(LimbeckError):
    """A model that cannot be scored as a task asks, such as one without log-probabilities."""


class JudgeError(LimbeckError):
    """A judge that cannot be named, or answers that cannot be compared."""


class GuardError(LimbeckError):
    """A gateway's setting, a policy or a traffic log that cannot be used."""


class AccountError(GuardError):
    """An account, key, organisation, plan or declared use that is unknown, or that may not do what was asked."""


class LedgerError(LimbeckError):
    """A record, proof, key or bundle that is missing, foreign, or does not verify."""


class TraceError(LimbeckError):
    """Coins, a suspect or a reference that an audit cannot use."""


class MissingDependencyError(LimbeckError):
    """An optional package that is needed and not installed."""
