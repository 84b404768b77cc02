"""Train a student on what a teacher said: the loop, readable top to bottom."""

import contextlib
import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.artefact import write_text
from limbeck.distill import checkpoint
from limbeck.distill.compiled import compiled_hidden
from limbeck.distill.forward import split
from limbeck.distill.fused import fused_sparse_loss
from limbeck.distill.grouped import Grouping
from limbeck.distill.objective import LossSpec
from limbeck.distill.packing import Batch, Row, assemble, attention_mask, pack, rows_for_epoch
from limbeck.distill.positions import (
    Selection,
    chosen_in_step,
    kept_count,
    most_uncertain,
    narrow,
    student_entropies,
)
from limbeck.distill.recipe import TrainRecipe
from limbeck.distill.spread import Team, clip, gather
from limbeck.distill.targets import Bools, Floats, Taught, concatenate
from limbeck.distill.torch_targets import TorchTargets
from limbeck.errors import RecipeError, RunError, TrainingError
from limbeck.placement import device
from limbeck.progress import Progress

LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class StepLog:
    """One line of the training log."""

    step: int
    loss: float
    """Mean over the step's loss positions, in nats."""
    gradient_norm: float
    """Before clipping."""
    learning_rate: float
    positions: int
    seconds: float
    """Wall time of this step."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run did."""

    steps: int
    positions: int
    """Loss positions trained on, over all epochs; those left out do not count."""
    log: tuple[StepLog, ...]


def learning_rate(recipe: TrainRecipe, step: int, steps: int) -> float:
    """Return the rate of step `step` (from 1) of `steps`: linear warm-up, then linear decay."""
    warm = max(1, round(recipe.warmup * steps))
    if step <= warm:
        return recipe.learning_rate * step / warm
    left = (steps - step) / max(1, steps - warm)
    return recipe.learning_rate * (recipe.final_rate + (1 - recipe.final_rate) * left)


class Objective(nn.Module):
    """A student with its loss, so that one forward gives a scalar however the model is wrapped."""

    def __init__(
        self,
        model: nn.Module,
        spec: LossSpec,
        selection: Selection | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        """Narrow each batch where `selection` asks the student; other selections happen before.

        Args:
            model: The student.
            spec: What to minimise.
            selection: Which positions count.
            compiled: Compile the layers' forward and backward at the first batch.
        """
        super().__init__()
        self.model = model
        self.spec = spec
        self.student_fraction = selection.student_fraction if selection else 1.0
        self._halves = (split(model),)  # a tuple, so that torch does not register the parts twice
        hidden = self._halves[0].hidden
        self._hidden = compiled_hidden(hidden) if compiled else hidden

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder's repeated blocks."""
        return self._halves[0].layers

    def forward(self, batch: Batch, targets: TorchTargets | None, positions: int) -> Tensor:
        """Return the batch's summed loss over `positions`, the step's global number of loss positions."""
        (halves,) = self._halves
        hidden_BTD = self._hidden(
            batch.tokens_BT,
            attention_mask=attention_mask(batch.segments_BT),
            position_ids=batch.positions_BT,
        )
        weight_VD = halves.head.weight
        hidden_ND = hidden_BTD.flatten(0, 1)[batch.loss_N]
        if self.student_fraction < 1:
            entropy_N = student_entropies(hidden_ND, weight_VD).cpu().numpy()
            kept_M = torch.from_numpy(most_uncertain(entropy_N, self.student_fraction))
            kept_M = kept_M.to(hidden_ND.device)
            batch, targets = narrow(batch, targets, kept_M)
            hidden_ND = hidden_ND[kept_M]
        return fused_sparse_loss(hidden_ND, weight_VD, targets, batch.next_N, self.spec, positions)


def train(
    model: nn.Module,
    taught: Sequence[Taught],
    recipe: TrainRecipe,
    spec: LossSpec,
    folder: Path,
    *,
    seed: int,
    resume: bool,
    progress: Progress,
    grouping: Grouping | None = None,
) -> Trained:
    """Train `model` in place and return what was done; the same inputs give the same weights to the bit.

    Order, packing, learning rate and noise are functions of the seed and the step alone, so a run that was
    killed goes on from its last checkpoint as if it had never stopped. A step is the same rows however
    many processes share them: other numbers of processes differ by rounding alone, and each goes on from
    the others' checkpoints.

    Args:
        model: A causal language model in float32; parameters without `requires_grad` stay as they are. The
            same in every process; torch's random state is not kept.
        taught: Training documents with the teacher's targets.
        recipe: Batches, schedule, precision.
        spec: What to minimise.
        folder: Where checkpoints and `log.jsonl` go.
        seed: Decides packing and order.
        resume: Go on from the newest checkpoint in `folder`.
        progress: Hears of every step.
        grouping: What targets over labels are made of; None where they are over the model's own tokens.

    Raises:
        RecipeError: The step's rows cannot be shared by so many processes.
        RunError: A checkpoint is there and `resume` is False.
        TrainingError: A loss or gradient is not finite, or a checkpoint is damaged.
    """
    team = Team.here(device())
    check_share(recipe, team.size)
    documents = [t.document for t in taught]
    rows = pack([len(d.tokens_T) for d in documents], recipe.row_length, seed=seed)
    per_step = recipe.rows * recipe.accumulate
    per_epoch = math.ceil(len(rows) / per_step)
    steps = max(1, round(recipe.epochs * per_epoch))

    model.train()
    student, objective = _spread(model, spec, recipe, team)
    trainable = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable,
        lr=recipe.learning_rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    done = restored_step(folder, student, optimizer, resume=resume)
    log = cut_log(folder, done, write=team.leads)
    progress.begin("train", steps, "steps")
    progress.advance(done)

    for step in range(done + 1, steps + 1):
        started = time.perf_counter()
        epoch, index = divmod(step - 1, per_epoch)
        chosen = rows_for_epoch(rows, seed=seed, epoch=epoch)[index * per_step :][:per_step]
        parts, positions = _parts(taught, chosen, recipe, team, seed=seed, step=step)
        loss = torch.zeros((), device=team.device)
        for number, part in enumerate(parts, start=1):
            batch = assemble(part.rows, documents, recipe.row_length, pad_id=0).to(team.device)
            needed = spec.needs_targets
            targets = targets_of(taught, batch, team.device, grouping) if needed else None
            batch, targets = narrow(batch, targets, part.kept_M)
            torch.manual_seed(noise_seed(seed, step, part.number))
            last = number == len(parts)
            with contextlib.nullcontext() if last else team.keep_gradients(objective):
                with precision_context(recipe, team.device):
                    # Gradients are averaged over processes, the loss is a sum over them.
                    part_loss = objective(batch, targets, positions) * team.size
                part_loss.backward()
            loss += part_loss.detach()
        mean = team.mean(loss)
        norm = clip(trainable, recipe.clip)
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise not_finite(
                mean, norm, step, [documents[i].key for r in chosen for i in r.documents], folder
            )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - started
        entry = StepLog(step, mean, norm, learning_rate(recipe, step, steps), positions, seconds)
        log.append(entry)
        if team.leads:
            append_log(folder, entry)
        if step % recipe.checkpoint_every == 0 and step < steps:
            checkpoint.save(folder, step, student, optimizer, write=team.leads)
        progress.advance(1, f"loss {mean:.3f}, {positions / seconds:.0f} tokens/s")

    gather(student, model)
    progress.end(f"loss {log[-1].loss:.3f}")
    model.eval()
    return Trained(steps, sum(e.positions for e in log), tuple(log))


def _selection(recipe: TrainRecipe) -> Selection:
    return Selection(recipe.positions, recipe.position_choice)


def _spread(
    model: nn.Module, spec: LossSpec, recipe: TrainRecipe, team: Team
) -> tuple[nn.Module, nn.Module]:
    """Return the student and its objective, wrapped to train with the team; shards are cut from a copy."""
    student = copy.deepcopy(model) if team.shards else model
    objective = Objective(student, spec, _selection(recipe), compiled=recipe.compile)
    return student, team.wrap(objective, objective.layers)


def _parts(
    taught: Sequence[Taught],
    rows: Sequence[Row],
    recipe: TrainRecipe,
    team: Team,
    *,
    seed: int,
    step: int,
) -> tuple[list["Part"], int]:
    """Return this process's micro-batches of a step, and the loss positions of all processes'."""
    selection = _selection(recipe)
    fraction = selection.student_fraction
    masks = chosen_in_step(selection, _entropies(taught, rows), seed=seed, step=step)
    shares = deal(rows, masks, recipe.rows, team.size, whole=fraction < 1)
    return shares[team.rank], sum(p.positions(fraction) for parts in shares for p in parts)


def _entropies(taught: Sequence[Taught], rows: Sequence[Row]) -> list[Floats]:
    """Return the teacher's entropy at each row's loss positions, in nats."""
    return [np.concatenate([taught[i].targets.entropy_N for i in row.documents]) for row in rows]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a micro-batch, with the loss positions that are kept of them."""

    number: int
    """Of the micro-batch within the step, whichever process has it."""
    rows: Sequence[Row]
    kept_M: Tensor
    """Ascending indices into the rows' loss positions."""

    def positions(self, student_fraction: float) -> int:
        """Return how many are trained on when the student keeps this fraction of them."""
        return kept_count(len(self.kept_M), student_fraction)


def check_share(recipe: TrainRecipe, processes: int) -> None:
    """Refuse a step whose rows cannot be shared so that every process has work.

    Raises:
        RecipeError: There are more processes than a step has rows, or micro-batches that must stay whole.
    """
    whole = _selection(recipe).student_fraction < 1
    have = recipe.accumulate if whole else recipe.rows * recipe.accumulate
    if processes <= have:
        return
    if whole:
        raise RecipeError(
            f"{processes} processes cannot share a step of train.accumulate = {have} micro-batches, within "
            "each of which the student chooses its positions; raise train.accumulate to a multiple of the "
            "processes and lower train.rows, or launch fewer"
        )
    raise RecipeError(
        f"{processes} processes cannot share a step of {have} rows (train.rows x train.accumulate); "
        "raise one of them, or launch fewer"
    )


def deal(
    rows: Sequence[Row], masks: Sequence[Bools], size: int, processes: int, *, whole: bool
) -> list[list[Part]]:
    """Cut a step's rows into micro-batches and deal them out, as many to each process.

    A process that would have one fewer gets one that counts for nothing, for all must meet in each.

    Args:
        rows: Of one step.
        masks: Which of each row's loss positions are kept.
        size: Rows of a micro-batch at the most.
        processes: How many share.
        whole: Keep micro-batches at their size, because the loss depends on what is in one.
    """
    each = math.ceil(len(rows) / (size * processes))
    if not whole:
        size = math.ceil(len(rows) / (each * processes))
    parts = [
        Part(
            number,
            rows[start : start + size],
            torch.from_numpy(np.flatnonzero(np.concatenate(masks[start : start + size]))),
        )
        for number, start in enumerate(range(0, len(rows), size))
    ]
    nothing = torch.from_numpy(np.zeros(0, np.int64))
    idle = [Part(n, rows[:1], nothing) for n in range(len(parts), each * processes)]
    return [[*parts, *idle][process::processes] for process in range(processes)]


def noise_seed(seed: int, step: int, part: int) -> int:
    """Return the seed of a micro-batch's noise, such as dropout's."""
    return int(np.random.SeedSequence((seed, step, part)).generate_state(1, np.uint64)[0] >> 1)


def targets_of(
    taught: Sequence[Taught],
    batch: Batch,
    device: torch.device,
    grouping: Grouping | None = None,
) -> TorchTargets:
    """Return what the teacher said at the batch's loss positions, from the store; `grouping` is that of `train`."""
    targets = concatenate([taught[i].targets for i in batch.documents])
    if grouping is None:
        return TorchTargets.from_numpy(targets, device)
    return grouping(targets, batch.next_N.cpu().numpy().astype(np.int32), device)


def precision_context(
    recipe: TrainRecipe, device: torch.device
) -> contextlib.AbstractContextManager[object]:
    """Return the context that computes a loss in the recipe's precision."""
    if recipe.precision == "no":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def restored_step(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, resume: bool
) -> int:
    """Put the newest checkpoint back and return its step, 0 where there is none."""
    found = checkpoint.latest(folder)
    if found is None:
        return 0
    if not resume:
        raise RunError(
            f"{folder} holds an unfinished training (step {found.step}); go on with --resume, or choose another --out"
        )
    checkpoint.restore(found, model, optimizer)
    return found.step


def read_log(path: Path) -> list[StepLog]:
    """Read a training log; a last line that a crash cut short is left out."""
    entries: list[StepLog] = []
    if not path.is_file():
        return entries
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(StepLog(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return entries


def cut_log(folder: Path, done: int, *, write: bool) -> list[StepLog]:
    """Return the log of the steps that the checkpoint holds; who may write forgets later ones on disk."""
    log = [e for e in read_log(folder / LOG) if e.step <= done]
    if write:
        write_text(folder / LOG, "".join(json.dumps(asdict(e)) + "\n" for e in log))
    return log


def append_log(folder: Path, entry: StepLog) -> None:
    """Add a line to the log."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(entry)) + "\n")


def not_finite(
    loss: float, norm: float, step: int, keys: Sequence[str], folder: Path
) -> TrainingError:
    """Return the error that names the step, its first documents and the checkpoint before it."""
    found = checkpoint.latest(folder)
    kept = (
        f"checkpoint of step {found.step} is kept in {found.folder}"
        if found
        else "no checkpoint yet"
    )
    batch = ", ".join(key[:12] for key in keys[:4]) + (", …" if len(keys) > 4 else "")
    return TrainingError(
        f"loss {loss} with gradient norm {norm} at step {step} (documents {batch}) is not finite; "
        f'{kept}; lower train.learning_rate or use train.precision = "no"'
    )
