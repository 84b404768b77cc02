"""Train a student on text of its own, judged by the teacher: the loop, readable top to bottom.

Every `max_staleness + 1` steps the student answers the prompts of that many steps at once, so that batches are
large; the answers are then trained on, none of them older than `max_staleness` steps. Checkpoints are taken
where all answers are used up. What a killed run had written is therefore written again, by the same weights
from the same seeds, and nothing but weights, optimiser and a number needs to be kept.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from limbeck.distill import checkpoint
from limbeck.distill.forward import Halves, check_packs, split
from limbeck.distill.fused import fused_sparse_loss
from limbeck.distill.fused_dense import TeacherStates, fused_dense_loss
from limbeck.distill.mixing import Mixing, mixed
from limbeck.distill.objective import LossSpec
from limbeck.distill.own_text import Writer, cut_writing, prompts_with_room
from limbeck.distill.packing import Batch, Row, assemble, attention_mask, pack
from limbeck.distill.positions import narrow
from limbeck.distill.recipe import OnPolicyRecipe, TrainRecipe
from limbeck.distill.spread import Team, clip
from limbeck.distill.targets import Document, Taught
from limbeck.distill.torch_targets import TorchTargets
from limbeck.distill.train import (
    StepLog,
    Trained,
    append_log,
    cut_log,
    learning_rate,
    noise_seed,
    not_finite,
    precision_context,
    restored_step,
    targets_of,
)
from limbeck.errors import RecipeError, TrainingError
from limbeck.model import LocalModel
from limbeck.placement import device, place
from limbeck.progress import Progress


@dataclass(frozen=True, slots=True)
class MixedSpec:
    """What is minimised on either kind of text."""

    own: LossSpec
    """On the student's own text, against the teacher's whole distribution."""
    read: LossSpec
    """On text from the store, against its targets."""


class MixedObjective(nn.Module):
    """A student with its losses, so that one forward gives a scalar however the model is wrapped."""

    def __init__(self, model: nn.Module, spec: MixedSpec) -> None:
        super().__init__()
        self.model = model
        self.spec = spec
        self._halves = (split(model),)  # a tuple, so that torch does not register the parts twice

    def forward(
        self, batch: Batch, said: TeacherStates | TorchTargets | None, positions: int
    ) -> Tensor:
        """Return the batch's summed loss over `positions`, the step's global number of loss positions.

        Args:
            batch: Of one kind of text.
            said: The teacher's states on the student's text, or targets from the store; None for plain
                cross-entropy.
            positions: Over both kinds of text, all micro-batches and all processes.
        """
        (halves,) = self._halves
        hidden_ND, weight_VD = hidden_at_loss(halves, batch), halves.head.weight
        if not len(
            hidden_ND
        ):  # a process with nothing to do in a step still takes part in its sums
            return (hidden_ND @ weight_VD.t()).sum()
        if isinstance(said, TeacherStates):
            return fused_dense_loss(hidden_ND, weight_VD, said, self.spec.own, positions)
        return fused_sparse_loss(
            hidden_ND, weight_VD, said, batch.next_N, self.spec.read, positions
        )


def hidden_at_loss(halves: Halves, batch: Batch) -> Tensor:
    """Return a model's last hidden states at the batch's loss positions."""
    hidden_BTD = halves.hidden(
        batch.tokens_BT,
        attention_mask=attention_mask(batch.segments_BT),
        position_ids=batch.positions_BT,
    )
    return hidden_BTD.flatten(0, 1)[batch.loss_N]


def check_whole(*, shards: bool) -> None:
    """Refuse a launch that cuts the student into shards.

    Raises:
        RecipeError: It does.
    """
    if shards:
        raise RecipeError(
            "a recipe with on_policy needs the whole student in every process, for each writes with it, and "
            "this launch cuts it into shards; launch without --use_fsdp, for a copy in each"
        )


def train_on_policy(
    student: LocalModel,
    teacher: LocalModel,
    taught: Sequence[Taught],
    recipe: TrainRecipe,
    own: OnPolicyRecipe,
    spec: MixedSpec,
    folder: Path,
    *,
    seed: int,
    resume: bool,
    progress: Progress,
) -> Trained:
    """Train `student` in place and return what was done; the same inputs give the same weights to the bit.

    Args:
        student: Its model in float32; parameters without `requires_grad` stay as they are.
        teacher: Asked about every token that the student writes.
        taught: Training documents with the teacher's targets: read, or taken as prompts.
        recipe: Schedule, rows, precision; `accumulate` and `positions` must be 1.
        own: How much the student writes, how, and how old it may be.
        spec: What to minimise.
        folder: Where checkpoints, `log.jsonl` and `writing.jsonl` go.
        seed: Decides order and every draw.
        resume: Go on from the newest checkpoint in `folder`.
        progress: Hears of every step.

    Raises:
        RecipeError: A prompt leaves no room for an answer, or the launch asks for shards.
        RunError: A checkpoint is there and `resume` is False.
        StudentError: The teacher cannot read packed rows.
        TrainingError: A loss or gradient is not finite, or a checkpoint is damaged.
    """
    team = _team()
    prompts = prompts_with_room([t.document for t in taught], own, recipe.row_length, teacher)
    mixing = Mixing(len(taught), own.documents, own.fraction, seed)
    steps, chunk = mixing.steps(recipe.epochs), own.max_staleness + 1
    scorer = _scorer(teacher, recipe, team.device) if own.fraction else None
    writer = Writer(student, own, recipe.precision, team, seed, folder)

    model = student.model.train()
    objective = team.wrap(MixedObjective(model, spec), layers=())
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable,
        lr=recipe.learning_rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    done = restored_step(folder, model, optimizer, resume=resume)
    log = cut_log(folder, done, write=team.leads)
    cut_writing(folder, done, write=team.leads)
    fresh: Mapping[int, Sequence[Document]] = {}
    progress.begin("train", steps, "steps")
    progress.advance(done)

    for step in range(done + 1, steps + 1):
        started = time.perf_counter()
        if (step - 1) % chunk == 0:
            ahead = range(step, min(step + chunk, steps + 1))
            fresh = writer.write({s: [prompts[i] for i in mixed(mixing, s).own] for s in ahead})
        read = [taught[i] for i in mixed(mixing, step).read]
        shares = _shares(fresh[step], read, recipe, team.size, seed)
        parts, positions = shares[team.rank], sum(p.positions for s in shares for p in s)
        loss = torch.zeros((), device=team.device)
        for number, part in enumerate(parts, start=1):
            batch = part.batch().to(team.device)
            said = _said(part, batch, scorer, spec.read)
            torch.manual_seed(noise_seed(seed, step, number * team.size + team.rank))
            with _summed(team, objective, last=number == len(parts)):
                with precision_context(recipe, team.device):
                    # Gradients are averaged over processes, the loss is a sum over them.
                    part_loss = objective(batch, said, positions) * team.size
                part_loss.backward()
            loss += part_loss.detach()
        mean = team.mean(loss)
        norm = clip(trainable, recipe.clip)
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise not_finite(mean, norm, step, [d.key for p in parts for d in p.documents], folder)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - started
        entry = StepLog(step, mean, norm, learning_rate(recipe, step, steps), positions, seconds)
        log.append(entry)
        if team.leads:
            append_log(folder, entry)
        if _checkpoint_is_due(step, recipe.checkpoint_every, chunk) and step < steps:
            checkpoint.save(folder, step, model, optimizer, write=team.leads)
        progress.advance(1, f"loss {mean:.3f}, {positions / seconds:.0f} tokens/s")

    progress.end(f"loss {log[-1].loss:.3f}")
    model.eval()
    return Trained(steps, sum(e.positions for e in log), tuple(log))


# One step


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one kind of text, for one micro-batch."""

    rows: Sequence[Row]
    documents: Sequence[Document]
    """What the rows' numbers mean."""
    taught: Sequence[Taught] | None
    """The same with targets from the store; None where the student wrote them."""
    idle: bool = False
    """Whether no position counts: a process must take part in a step that has too few rows for it."""

    @property
    def positions(self) -> int:
        """Loss positions."""
        return 0 if self.idle else sum(self.documents[n].positions for n in self._numbers())

    def batch(self) -> Batch:
        """Return the micro-batch, no wider than its longest row."""
        width = max(
            r.offsets[-1] + len(self.documents[r.documents[-1]].tokens_T) for r in self.rows
        )
        batch = assemble(self.rows, self.documents, width, pad_id=0)
        return narrow(batch, None, torch.zeros(0, dtype=torch.long))[0] if self.idle else batch

    def _numbers(self) -> Iterator[int]:
        return (n for row in self.rows for n in row.documents)


def _shares(
    fresh: Sequence[Document],
    read: Sequence[Taught],
    recipe: TrainRecipe,
    processes: int,
    seed: int,
) -> list[list[_Part]]:
    """Pack either kind of text, deal the rows out to processes, and cut each share into micro-batches."""
    shares: list[list[_Part]] = [[] for _ in range(processes)]
    whole: list[_Part] = []
    for documents, taught in ((fresh, None), ([t.document for t in read], read)):
        rows = pack([len(d.tokens_T) for d in documents], recipe.row_length, seed=seed)
        if rows:
            whole.append(_Part(rows, documents, taught))
        for process, share in enumerate(shares):
            mine = rows[process::processes]
            cuts = range(0, len(mine), recipe.rows)
            share += [_Part(mine[c : c + recipe.rows], documents, taught) for c in cuts]
    idle = replace(whole[0], rows=whole[0].rows[:1], idle=True)
    return [share or [idle] for share in shares]


def _said(
    part: _Part, batch: Batch, scorer: Halves | None, spec: LossSpec
) -> TeacherStates | TorchTargets | None:
    """Ask the teacher about the student's text, or look up what it said about its own."""
    if part.idle:
        return None
    if part.taught is not None:
        return targets_of(part.taught, batch, batch.loss_N.device) if spec.needs_targets else None
    if scorer is None:
        raise TrainingError("the student wrote text and there is no teacher to judge it")
    with torch.no_grad():
        return TeacherStates(hidden_at_loss(scorer, batch), scorer.head.weight)


def _scorer(teacher: LocalModel, recipe: TrainRecipe, where: torch.device) -> Halves:
    if teacher.model.device != where:
        place(teacher.model, where)
    halves = split(teacher.model)
    check_packs(halves, teacher.model.config, recipe.row_length)
    return halves


def _team() -> Team:
    team = Team.here(device())
    check_whole(shards=team.shards)
    return team


def _summed(
    team: Team, objective: nn.Module, *, last: bool
) -> contextlib.AbstractContextManager[None]:
    """Let processes exchange gradients after the last micro-batch only."""
    return contextlib.nullcontext() if last else team.keep_gradients(objective)


def _checkpoint_is_due(step: int, every: int, chunk: int) -> bool:
    """Tell whether all answers are used up and a multiple of `every` has passed since the last such step."""
    return step % chunk == 0 and step // every > (step - chunk) // every
