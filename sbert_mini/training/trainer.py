"""The multi-task fitter: sentence-transformers' trainer, with a sub-batch of every task in each step and gradient surgery."""

import itertools
import logging
import math
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from sbert_mini.encoder.module import MiniBertModule, MiniSentenceTransformer
from sbert_mini.errors import TrainingError, UsageError
from sbert_mini.files import outputs
from sbert_mini.shapes import IntArray
from sbert_mini.text.batching import pad
from sbert_mini.text.tokenizer import Tokens
from sbert_mini.training import averaging, checkpoints, processes
from sbert_mini.training.adamw import AdamW
from sbert_mini.training.averaging import WeightAverage
from sbert_mini.training.checks import normalized
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.evaluator import Measured, TaskEvaluator, encode_tokenized, standing
from sbert_mini.training.examples import Examples, TokenizedTexts
from sbert_mini.training.lora import Lora
from sbert_mini.training.r_drop import RDrop
from sbert_mini.training.rates import depth, parameter_groups, set_trained, unfrozen_depth
from sbert_mini.training.regularizers import Pass, Regularizer
from sbert_mini.training.schedule import BundleSampler, Schedule
from sbert_mini.training.smart import Bregman, Smart
from sbert_mini.training.surgery import GradientBuffer, Surgeon, cosines
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Objective, Task

log = logging.getLogger("sbert_mini")

LIKE_LENGTHS = 0.8
"""Columns whose longest texts are, on average, at least this share of the longest of all go through the encoder together."""
TEACHER = "teacher.safetensors"


def _best_standing(state: Any, tasks: Sequence[TaskConfig]) -> tuple[int, float] | None:
    """Return the standing of the best evaluation until now, from the log; None where there is none."""
    for line in state.log_history:
        if line.get("step") == state.best_global_step and "eval_mean" in line:
            return standing(_without_prefix(line), tasks)
    return None


def _without_prefix(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("eval_"): value for name, value in metrics.items() if name.startswith("eval_")}


class Patience(EarlyStoppingCallback):
    """Stops training after some evaluations without a better mean; those before the first mean that is defined do not count.

    Args:
        evaluations: how many.
        tasks: all tasks.
    """

    def __init__(self, evaluations: int, tasks: Sequence[TaskConfig]) -> None:
        super().__init__(evaluations)
        self._tasks = tasks

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **options: Any) -> None:  # noqa: ARG002
        """Count the evaluation."""
        best, now = _best_standing(state, self._tasks), standing(_without_prefix(metrics), self._tasks)
        if best is None or (now is not None and now > best):
            self.early_stopping_patience_counter = 0
            return
        self.early_stopping_patience_counter += 1
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class _AfterStep(TrainerCallback):
    """Tells the trainer that a step was taken."""

    def __init__(self, trainer: "MultiTaskTrainer") -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:  # noqa: ARG002
        self._trainer.after_step()


class _Rows(Dataset[Any]):
    """What a DataLoader draws from: an example is named by (task, number), and the collator looks it up."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: tuple[int, int]) -> tuple[int, int]:
        return place


@dataclass(frozen=True)
class _TaskData:
    """A task's training examples, ready for use: tokenized columns, targets, and what keeps texts from meeting twice."""

    columns: list[TokenizedTexts]
    targets: Tensor | None
    lengths: IntArray
    keys: list[tuple[int, ...]] | None
    vectors: list[Tensor] | None = None


class MultiTaskTrainer(SentenceTransformerTrainer):
    """Fits a model to several tasks at once.

    Each optimizer step holds a sub-batch of every task. A task's gradient on the encoder is taken by itself; a rule of gradient
    surgery combines them; the heads' gradients are added up and never projected, since no two tasks share a head. All texts of a
    sub-batch go through the encoder in one forward pass, with texts of like length, or a column at a time where columns differ.

    Everything else is `SentenceTransformerTrainer`'s: arguments, mixed precision, gradient accumulation, learning-rate
    schedules, callbacks, early stopping. Checkpoints also hold heads, margins, the schedule's history and all random states: a
    run that is killed and resumed ends in the same weights as one that is not. They are written beside their place and renamed
    into it, so that each one there is whole, and they hold no pickle.

    Args:
        model: the model to train, from `sbert_mini.load`.
        args: sentence-transformers' arguments; None for its defaults.
        tasks: the tasks.
        config: see `FitterConfig`.
        options: further arguments of `SentenceTransformerTrainer`, such as `callbacks`.

    Raises:
        UsageError: there is no task, two have one name, or the arguments ask for what the fitter cannot do.
    """

    def __init__(
        self,
        model: MiniSentenceTransformer,
        args: SentenceTransformerTrainingArguments | None = None,
        tasks: Sequence[Task] = (),
        config: FitterConfig | None = None,
        **options: Any,
    ) -> None:
        if untaught := [t.config.name for t in tasks if t.config.spec.taught and t.teacher_vectors is None]:
            raise UsageError(f"task {untaught[0]!r}: the loss distillation needs teacher_vectors")
        self.fitter = config or FitterConfig()
        self.fitter.check_tasks(
            [task.config for task in tasks],
            trained=[task.config.name for task in tasks if not task.only_measured],
            measured=[task.config.name for task in tasks if task.dev is not None],
        )
        if not isinstance(model[0], MiniBertModule):
            raise UsageError("the model's encoder must be MiniBert: load it with sbert_mini.load")
        self._all_tasks = [task.trained() for task in tasks]
        self.tasks = [task for task in self._all_tasks if not task.only_measured]
        self.objectives = {task.config.name: Objective(task, model) for task in self._all_tasks}
        self.surgeon = Surgeon(self.fitter.surgery or "sum", seed=args.seed if args is not None else 42)
        self._encoder: MiniBertModule = model[0]
        self._data: list[_TaskData] = []
        self._sampler: BundleSampler | None = None
        self._buffer: GradientBuffer | None = None
        self._seen: dict[str, list[float]] = {}
        self._examples, self._clock = 0, time.perf_counter()
        self._first_losses: dict[str, float] = {}
        self._recent: dict[str, list[float]] = {task.config.name: [] for task in self.tasks}
        self.lora = Lora(model[0].model, self.fitter.lora) if self.fitter.lora is not None else None
        evaluator = self._evaluator(model)
        super().__init__(
            model=model,
            args=args,
            loss=nn.ModuleDict({f"task_{name}": o for name, o in self.objectives.items()}),
            evaluator=evaluator,
            **options,
        )
        self._check_arguments()
        self.add_callback(_AfterStep(self))
        self.remove_callback(PrinterCallback)  # it prints to stdout, which is for data
        self.schedule = self._new_schedule()
        if self.fitter.encoder == "frozen":
            self.model.requires_grad_(False)
        self._averaged: WeightAverage | None = None
        self._teacher: WeightAverage | None = None
        self._regularizers = self._new_regularizers()

    # --- set up ---

    def _check_arguments(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise UsageError(
                "the fitter takes whole gradients of each task: FSDP and DeepSpeed, which shard them, are not for it"
            )
        if self.args.n_gpu > 1:
            raise UsageError("a process trains on one device: start one for each, by torchrun --nproc-per-node")
        if self.fitter.batch_size % processes.count():
            raise UsageError(
                f"a batch of {self.fitter.batch_size} examples cannot be shared by {processes.count()} processes: name a multiple"
            )
        if self.args.fp16:
            raise UsageError("fp16 needs its losses scaled; use bf16")

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do nothing: the card is written by `recipes.card`, from the recipe and the figures."""

    def _tokens(self, task: Task, examples: Examples, which: str) -> list[TokenizedTexts]:
        tokenizer = self._encoder.text_tokenizer
        columns: list[Any] = [list(column) for column in zip(*examples.texts, strict=True)]
        if task.config.structure == "pair":
            columns = [[(row[0], row[1]) for row in examples.texts]]
        found = [TokenizedTexts(column, tokenizer) for column in columns]
        if cut := sum(column.truncated for column in found):
            what = "pairs" if task.config.structure == "pair" else "texts"
            limit = tokenizer.max_seq_length
            log.warning(
                "task %s: %d %s %s are longer than %d tokens, and are cut", task.config.name, cut, which, what, limit
            )
        return found

    def _evaluator(self, model: MiniSentenceTransformer) -> TaskEvaluator | None:
        measured = [Measured(t, t.dev, self._tokens(t, t.dev, "dev")) for t in self._all_tasks if t.dev is not None]
        if not measured:
            return None
        for task in self.tasks if self.fitter.train_rows else ():
            if task.config.has_dev_figure:
                some = task.train.sample(self.fitter.train_rows, seed=0)
                measured.append(Measured(task, some, self._tokens(task, some, "training"), "train_"))
        fixed = self.fitter.encoder == "frozen"
        return TaskEvaluator(measured, self.objectives, partial(self._embed, model), fixed=fixed)

    def _features(self, tokens: Sequence[Tokens]) -> dict[str, Tensor]:
        arrays = pad(tokens, self._encoder.text_tokenizer.pad_id)
        return dict(zip(("input_ids", "attention_mask", "token_type_ids"), map(torch.from_numpy, arrays), strict=True))

    def _embed(self, model: nn.Module, tokens: Sequence[Tokens], adapter: nn.Module | None = None) -> Tensor:
        features: dict[str, Any] = {k: tensor.to(self.args.device) for k, tensor in self._features(tokens).items()}
        if adapter is not None:
            features["adapter"] = adapter
        vectors: Tensor = model(features)["sentence_embedding"]
        return vectors

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        examples = sum(len(task.train) for task in self.tasks)
        return self.fitter.steps_per_epoch or math.ceil(examples / self.fitter.batch_size)

    def _new_schedule(self) -> Schedule:
        counts = {task.config.name: len(task.train) for task in self.tasks}
        if self.args.max_steps > 0:
            steps = math.ceil(self.steps_per_epoch / self.args.gradient_accumulation_steps)
            epochs = math.ceil(self.args.max_steps / steps)
        else:
            epochs = math.ceil(self.args.num_train_epochs)
        unit = processes.count()
        return Schedule(self.fitter.schedule, counts, self.fitter.batch_size, epochs, self.fitter.floor, unit)

    def _new_regularizers(self) -> dict[str, list[Regularizer]]:
        """Return the rules of each task."""
        settings = self.fitter.regularization
        made: list[Regularizer] = []
        if settings.smart:
            shape = (settings.smart_radius, settings.smart_step_size, settings.smart_steps, settings.smart_noise)
            made.append(Smart(settings.smart, *shape))
        if settings.bregman:
            made.append(Bregman(settings.bregman))
        if settings.r_drop:
            made.append(RDrop(settings.r_drop))
        rules: dict[str, list[Regularizer]] = {}
        for task in self.tasks if made else ():
            name = task.config.name
            if settings.tasks and name not in settings.tasks:
                continue
            if task.config.has_outputs:
                rules[name] = made
            else:
                log.info("task %s: the loss %s has no outputs to regularize", name, task.config.loss)
        return rules

    def _prepared(self, task: Task) -> _TaskData:
        columns = self._tokens(task, task.train, "training")
        vectors = None
        if self.fitter.encoder == "frozen":
            self.model.eval()
            with self.accelerator.autocast():  # in the precision of the steps
                vectors = [encode_tokenized(partial(self._embed, self.model), column) for column in columns]
        keys = None
        if task.config.spec.ranking:
            numbers: dict[str, int] = {}
            keys = [tuple({numbers.setdefault(normalized(t), len(numbers)) for t in row}) for row in task.train.texts]
        lengths = np.max([column.lengths for column in columns], axis=0)
        columns = columns * task.config.views
        return _TaskData(columns, task.targets(task.train), lengths, keys, vectors)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return batches that hold a sub-batch of every task; see `schedule.BundleSampler`."""
        if not self._data:
            self._data = [self._prepared(task) for task in self.tasks]
        counts = [len(task.train) for task in self.tasks]
        self._sampler = BundleSampler(
            self.schedule,
            counts,
            [data.lengths if self.fitter.length_batches else None for data in self._data],
            self.steps_per_epoch,
            self.args.seed,
            [data.keys for data in self._data],
        )
        rows = _Rows(self.steps_per_epoch * self.fitter.batch_size)
        return DataLoader(rows, batch_sampler=self._sampler, collate_fn=self._collate)

    def _collate(self, places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        batches = []
        for number, (task, data) in enumerate(zip(self.tasks, self._data, strict=True)):
            chosen = [i for t, i in places if t == number]
            batch: dict[str, Any] = {"examples": len(chosen)}
            if data.targets is not None and (task.config.needs_label or task.teacher_vectors is not None):
                batch["targets"] = data.targets[chosen]
            if data.vectors is None:  # each process encodes its part; heads on fixed vectors are too small to share
                part = len(chosen) // processes.count()
                chosen = chosen[processes.number() * part :][:part]
            batch["size"] = len(chosen)
            if data.vectors is not None:
                batch["vectors"] = [v[chosen] for v in data.vectors]
            elif self.objectives[task.config.name].stock_features:
                batch["columns"] = [self._features([column[i] for i in chosen]) for column in data.columns]
            else:
                batch["features"] = self._passes(task, [[column[i] for i in chosen] for column in data.columns])
            batches.append(batch)
        return {"tasks": batches}

    def _passes(self, task: Task, columns: Sequence[Sequence[Tokens]]) -> list[dict[str, Tensor]]:
        """Return the features of a sub-batch's forward passes: one for all its texts, or one a column where they differ in length
        so much (titles and articles) that most of it would be padding. Regularizers change all texts of one pass.
        """
        widths = [max(len(tokens.ids) for tokens in column) for column in columns]
        apart = task.config.name not in self._regularizers and sum(widths) < LIKE_LENGTHS * max(widths) * len(widths)
        if apart:
            return [self._features(column) for column in columns]
        return [self._features([tokens for column in columns for tokens in column])]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:  # noqa: ARG002
        """Return the optimizer: the encoder's and the heads' parameters, each with and without decay.

        Biases and LayerNorm do not decay (Devlin et al. 2018, google-research/bert `optimization.py`).
        """
        made: torch.optim.Optimizer | None = getattr(self, "optimizer", None)
        if made is not None:
            return made
        groups = []
        head_rate = self.fitter.head_learning_rate
        head_rate = self.args.learning_rate if head_rate is None else head_rate
        modules: list[tuple[nn.Module, float, float]] = [
            (self.model, self.args.learning_rate, self.fitter.layer_decay),
            *((objective, head_rate, 1.0) for objective in self.objectives.values()),
        ]
        for module, rate, decay in modules:
            named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
            groups += parameter_groups(named, rate, decay, self.args.weight_decay, self._layers)
        if not groups:
            raise UsageError("nothing is trained: the encoder is frozen, and no task has a head with weights")
        options = {"betas": (self.args.adam_beta1, self.args.adam_beta2), "eps": self.args.adam_epsilon}
        if self.fitter.optimizer == "torch-adamw":
            made = torch.optim.AdamW(groups, lr=self.args.learning_rate, fused=True, **options)
        else:
            made = AdamW(groups, lr=self.args.learning_rate, decoupled=self.fitter.optimizer == "adamw", **options)
            words = self._encoder.model.embeddings.word_embeddings
            words.sparse = (
                words.weight.requires_grad
                and processes.count() == 1  # rows that each process touched for itself would have to be exchanged
                and (self.fitter.optimizer == "adamw" or not self.args.weight_decay)
            )
        self.optimizer: Any = made
        return made

    # --- a step ---

    @property
    def _layers(self) -> int:
        return self._encoder.model.config.num_hidden_layers

    def _modules_by_name(self) -> dict[str, nn.Module]:
        return {"model": self.model, **{f"task_{name}": o for name, o in self.objectives.items()}}

    def train(self, *args: Any, **options: Any) -> Any:
        """Train, as `SentenceTransformerTrainer.train`; several processes start from the first one's weights."""
        processes.agree(self._modules_by_name().values())
        self._start_averages()
        self._clock = time.perf_counter()
        if processes.number():
            torch.manual_seed(self.args.seed + processes.number())  # other dropout masks than the first one's
        return super().train(*args, **options)

    def trial(self, steps: int) -> tuple[float, list[float]]:
        """Take a few steps, without logs or checkpoints; return the seconds of making the data ready, and of each step.

        The weights are spoilt afterwards: it is for measuring.
        """
        self._start_averages()
        optimizer = self.create_optimizer()
        self.state.max_steps, self.current_gradient_accumulation_steps = steps, 1
        begun = time.perf_counter()
        loader = self.get_train_dataloader()
        ready = time.perf_counter() - begun
        seconds: list[float] = []
        while len(seconds) < steps:
            for batch in itertools.islice(loader, steps - len(seconds)):
                begun = time.perf_counter()
                self.training_step(self.model, batch)
                self._scaled_norm(self.args.max_grad_norm or math.inf)
                optimizer.step()
                self.model.zero_grad()
                self.after_step()
                seconds.append(time.perf_counter() - begun)
        return ready, seconds

    def _start_averages(self) -> None:
        average, momentum = self.fitter.average, self.fitter.regularization.bregman_momentum
        if average.kind != "none":
            self._averaged = WeightAverage(self._modules_by_name(), average.kind, average.decay)
        if self.fitter.regularization.bregman:
            self._teacher = WeightAverage(self._modules_by_name(), "ema", momentum, warm=False)

    def _shared(self) -> list[nn.Parameter]:
        found: list[Any] = [p for p in self.model.parameters() if p.requires_grad]
        return found

    @contextmanager
    def _captured(self, task: int) -> Iterator[None]:
        if self.fitter.surgery is None or self.fitter.encoder == "frozen" or len(self.tasks) < 2:
            yield
            return
        if self._buffer is None:
            words = self._encoder.model.embeddings.word_embeddings
            tables: list[Any] = [words.weight] if words.sparse and words.weight.requires_grad else []
            self._buffer = GradientBuffer(self._shared(), len(self.tasks), tables)
        with self._buffer.capture(task):
            yield

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Any:
        """Return the sum of the tasks' weighted losses of a batch; `training_step` takes them one by one."""
        losses = [self._task_loss(model, number, batch) for number, batch in enumerate(inputs["tasks"])]
        total = torch.stack([t.config.weight * x for t, x in zip(self.tasks, losses, strict=True)]).sum()
        return (total, {"losses": losses}) if return_outputs else total

    def _task_loss(self, model: nn.Module, number: int, batch: Mapping[str, Any]) -> Tensor:
        objective = self.objectives[self.tasks[number].config.name]
        targets = batch.get("targets")
        if "vectors" in batch:
            loss: Tensor = objective(batch["vectors"], targets)
            return loss
        if "columns" in batch:
            return objective.cached(batch["columns"])
        vectors = self._vectors(model, objective, batch)
        rules = self._regularizers.get(objective.config.name, [])
        if not rules:
            return objective(vectors, targets)
        by_outputs = objective.loss_of_outputs
        outputs = objective.outputs(vectors)
        loss = objective.loss_of(outputs, targets) if by_outputs else objective(vectors, targets)
        clean = Pass(
            outputs=outputs,
            loss=loss,
            loss_of=(lambda outputs: objective.loss_of(outputs, targets)) if by_outputs else None,
            embedded=(*batch["features"][0]["input_ids"].shape, self._encoder.model.config.hidden_size),
            run=lambda further: objective.outputs(self._vectors(model, objective, batch, further)),
            classes=objective.config.head_kind == "classification",
            teacher=lambda: self._teacher_outputs(objective, batch),
        )
        return torch.stack([loss, *(rule(clean) for rule in rules)]).sum()

    def _vectors(
        self, model: nn.Module, objective: Objective, batch: Mapping[str, Any], further: Mapping[str, Any] | None = None
    ) -> list[Tensor]:
        """Return the sentence vectors of a task's sub-batch, of all processes together: (examples, dim) a column."""
        more = {**(further or {}), **({"adapter": objective.adapter} if objective.adapter is not None else {})}
        own = torch.cat([model({**features, **more})["sentence_embedding"] for features in batch["features"]])
        columns: Any = own.split(batch["size"])  # type: ignore[no-untyped-call]  # own: (columns * batch, dim)
        return [processes.gather(column) for column in columns]

    def _teacher_outputs(self, objective: Objective, batch: Mapping[str, Any]) -> Tensor:
        """Return a task's outputs under the moving average of the weights."""
        assert self._teacher is not None  # noqa: S101
        with self._teacher.in_place():
            return objective.outputs(self._vectors(self.model, objective, batch))

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Tensor:
        """Back-propagate each task by itself, and at the last micro-batch of a step combine the gradients on the encoder."""
        if self.fitter.unfreeze_every:
            least = unfrozen_depth(self.state.global_step, self.fitter.unfreeze_every, self._layers)
            if set_trained(dict(self.model.named_parameters()), least, self._layers):
                self._buffer = None
        model.train(self.fitter.encoder == "trained")
        for objective in self.objectives.values():
            objective.train()
        inputs = self._prepare_inputs(inputs)
        progress = self.state.global_step / max(self.state.max_steps, 1)
        total = torch.zeros((), device=self.args.device)
        for number, (task, batch) in enumerate(zip(self.tasks, inputs["tasks"], strict=True)):
            margin = self.objectives[task.config.name].margin
            if margin is not None:
                margin.advance(progress)
            # Without `no_sync` several processes' gradients would be averaged after projection, which is another step.
            with self._captured(number), self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self._task_loss(model, number, batch)
                scaled = task.config.weight * loss / self.current_gradient_accumulation_steps
                self.accelerator.backward(scaled)
            if not bool(torch.isfinite(loss)):
                raise TrainingError(
                    f"the loss of the task {task.config.name!r} is {loss.item()} at step {self.state.global_step + 1}: lower the "
                    "learning rate, or look at the task's data"
                )
            total += scaled.detach()
            self._note(f"loss_{task.config.name}", loss.detach())
            if margin is not None:
                self._note(f"margin_{task.config.name}", margin.value)
            self._note(f"examples_{task.config.name}", batch["examples"])
        self._examples += sum(batch["examples"] for batch in inputs["tasks"])
        if not self.accelerator.sync_gradients:
            return total
        self._average_gradients()
        if self._buffer is not None:
            gram = self._buffer.gram()
            weights = self.surgeon.weights(gram, self.state.global_step)
            if (self.state.global_step + 1) % max(int(self.args.logging_steps), 1) == 0:
                self._note_layers(self._buffer)
            self._buffer.combine(weights)
            self._note_surgery(gram, weights)
        return total

    def _average_gradients(self) -> None:
        """Replace each task's gradient, and the heads', by the mean over the processes."""
        if processes.count() == 1:
            return
        modules: list[nn.Module] = [*self.objectives.values()]
        if self._buffer is not None:
            processes.average(self._buffer.gradients())
        else:
            modules.append(self.model)
        processes.average(p.grad for m in modules for p in m.parameters() if p.grad is not None)

    def _note(self, name: str, value: Tensor | float) -> None:
        self._seen.setdefault(name, []).append(float(value))
        if name.startswith("loss_"):
            self._recent[name.removeprefix("loss_")].append(float(value))

    def _note_surgery(self, gram: Tensor, weights: Tensor) -> None:
        names = [task.config.name for task in self.tasks]
        table = cosines(gram)
        for i, name in enumerate(names):
            self._note(f"grad_norm_{name}", math.sqrt(max(float(gram[i, i]), 0.0)))
            self._note(f"weight_{name}", float(weights[i]))
            for j in range(i + 1, len(names)):
                if not (gram[i, i] > 0 and gram[j, j] > 0):
                    continue  # a gradient that is zero has no direction
                self._note(f"cosine_{name}/{names[j]}", float(table[i, j]))
                self._note(f"conflict_{name}/{names[j]}", float(table[i, j] < 0))

    def _note_layers(self, buffer: GradientBuffer) -> None:
        """Note the cosines of the tasks' gradients in each depth of the encoder (`rates.depth`)."""
        places = {id(p): depth(name, self._layers) for name, p in self.model.named_parameters()}
        names = [task.config.name for task in self.tasks]
        for place, gram in buffer.grams([places[id(p)] for p in buffer.dense]).items():
            table = cosines(gram)
            for i, j in itertools.combinations(range(len(names)), 2):
                if not (gram[i, i] > 0 and gram[j, j] > 0):
                    continue
                self._note(f"cosine_{names[i]}/{names[j]}_depth_{place}", float(table[i, j]))

    def _clip_grad_norm(self, model: nn.Module) -> float:  # noqa: ARG002
        """Scale all gradients, the heads' included, to a common norm of at most `max_grad_norm`; return the norm before."""
        return self._scaled_norm(self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: float | None = None) -> float:  # noqa: ARG002
        return self._scaled_norm(math.inf) if grad_norm is None else grad_norm

    def _scaled_norm(self, limit: float) -> float:
        values = []
        modules = [self.model, *self.objectives.values()]
        for parameter in (p for module in modules for p in module.parameters()):
            if parameter.grad is not None:
                if parameter.grad.is_sparse:
                    parameter.grad = parameter.grad.coalesce()
                    values.append(parameter.grad.values())
                else:
                    values.append(parameter.grad)
        norm = float(torch.linalg.vector_norm(torch.stack([n.float() for n in torch._foreach_norm(values)])))
        if norm > limit:
            torch._foreach_mul_(values, limit / norm)
        return norm

    def _run_epoch(self, *, epoch: int, **options: Any) -> None:
        assert self._sampler is not None  # noqa: S101
        self._sampler.set_epoch(epoch)
        into_it = epoch == options["epochs_trained"] and options["steps_trained_in_current_epoch"] > 0
        if epoch and not into_it:
            # What an epoch's end moves is moved when the next one begins: the checkpoint of its last step is written before.
            for objective in self.objectives.values():
                if objective.margin is not None:
                    objective.margin.end_epoch()
            if self.evaluator is None:
                self._reallocate({})
        super()._run_epoch(epoch=epoch, **options)

    # --- figures ---

    def evaluate(
        self,
        eval_dataset: Any = None,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> dict[str, Any]:
        """Return the dev figures of all tasks and their mean, log them, and move a `dynamic` schedule by them.

        A figure that is not defined is None.

        Raises:
            UsageError: no task has dev examples.
        """
        if self.evaluator is None:
            raise UsageError("no task has dev examples")
        averaged = self._averaged if self.is_in_train else None
        if averaged is not None and averaged.rule == "checkpoints" and self.state.global_step >= self._average_from:
            averaged.update()
        with self._clock_stopped(), averaged.in_place() if averaged is not None and averaged.count else nullcontext():
            found = self.evaluator(self.model)
        metrics: dict[str, Any] = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        if self.is_in_train:
            self._reallocate(found)
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, Any], trial: Any) -> bool:  # noqa: ARG002
        """Return whether an evaluation is the best until now, and note it: the one with the greatest `evaluator.standing`."""
        tasks = [task.config for task in self._all_tasks]
        now = standing(_without_prefix(metrics), tasks)
        if self.args.metric_for_best_model is None or now is None:
            return False
        if self.state.best_global_step is not None:
            best = _best_standing(self.state, tasks)
            if best is not None and now <= best:
                return False
        self.state.best_metric, self.state.best_global_step = metrics["eval_mean"], self.state.global_step
        return True

    @property
    def _average_from(self) -> int:
        return math.ceil(self.fitter.average.start * self.state.max_steps)

    def after_step(self) -> None:
        """Take the new weights into the moving averages; called by the trainer's own callback after each optimizer step."""
        if self._averaged is not None and self._averaged.rule == "ema":
            self._averaged.update()
        if self._teacher is not None:
            self._teacher.update()

    def _reallocate(self, found: Mapping[str, float | None]) -> None:
        """Move a `dynamic` schedule: by dev figures where a task has some, by its loss against its first one where not."""
        if self.fitter.schedule != "dynamic" or self._sampler is None:
            return
        lacks = {}
        for task in self.tasks:
            name, metric = task.config.name, task.config.main_metric
            recent = self._recent[name]
            figure = found.get(f"{name}_{metric}")
            if figure is not None:
                lacks[name] = 1 - min(max(figure, 0.0), 1.0)
            else:
                mean = math.fsum(recent) / max(len(recent), 1)
                first = self._first_losses.setdefault(name, mean)
                lacks[name] = min(mean / first, 1.0) if first > 0 else 0.0
            self._recent[name] = []
        self.schedule.reallocate(lacks, self._sampler.next_batch)

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Add the means since the last log of each task's loss, gradient norm, weight and the gradients' cosines, and log.

        What is not a finite number is logged as None, which JSON has as null.
        """
        if "loss" in logs:
            logs = {**logs, **{name: math.fsum(values) / len(values) for name, values in self._seen.items()}}
            self._seen = {}
            logs |= self._resources()
        finite = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in logs.items()}
        super().log(finite, start_time)

    def _resources(self) -> dict[str, float]:
        """Return the seconds and examples a second since the last log line, evaluations and checkpoints left out, and peak MB."""
        done, seconds = self._examples, time.perf_counter() - self._clock
        self._examples, self._clock = 0, time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
        return {"seconds": seconds, "examples_per_second": done / seconds, "peak_mb": peak}

    @contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._clock += time.perf_counter() - begun

    # --- checkpoints ---

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        path = Path(output_dir or self.args.output_dir)
        self.model.save(str(path), create_model_card=False)
        if self.lora is not None:
            self.lora.save(path)
        for task in self.tasks:
            self.objectives[task.config.name].save(path)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ARG002
        """Write `checkpoint-<step>` whole, and rename it into its place."""
        with self._clock_stopped():
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        self.store_flos()
        folder = Path(self.args.output_dir)
        final = folder / f"checkpoint-{self.state.global_step}"
        if self.state.best_global_step is not None:
            self.state.best_model_checkpoint = str(folder / f"checkpoint-{self.state.best_global_step}")
        everyones = processes.everyone(checkpoints.random_state())
        if processes.number():
            processes.wait()
            return
        if final.exists() and not checkpoints.is_checkpoint(final):
            raise UsageError(f"{final} is in the way, and was not made by this fitter: move it, or name another folder")
        part = outputs.new_part(final)
        self._save(str(part))
        checkpoints.save_state(part, self.optimizer, self.lr_scheduler, self._fitter_state(), everyones)
        for name, average in self._averages().items():
            average.save(part / name)
        for callback in [*self.callback_handler.callbacks, self.control]:
            if hasattr(callback, "state") and type(callback).__name__ in self.state.stateful_callbacks:
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        self.state.save_to_json(str(part / "trainer_state.json"))
        shutil.rmtree(final, ignore_errors=True)
        outputs.finish(part, final)
        self._remove_old_checkpoints(folder)
        processes.wait()

    def _remove_old_checkpoints(self, folder: Path) -> None:
        """Remove the oldest of the fitter's checkpoints down to `save_total_limit`; the newest and the best one stay."""
        own = [path for path in checkpoints.checkpoint_folders(folder) if checkpoints.is_checkpoint(path)]
        kept = {own[-1], folder / f"checkpoint-{self.state.best_global_step}"} & set(own)
        excess = len(own) - max(self.args.save_total_limit or len(own), len(kept))
        for path in [path for path in own if path not in kept][: max(excess, 0)]:
            shutil.rmtree(path, ignore_errors=True)

    def _averages(self) -> dict[str, WeightAverage]:
        held = {averaging.FILE: self._averaged, TEACHER: self._teacher}
        return {name: average for name, average in held.items() if average is not None}

    def _fitter_state(self) -> dict[str, Any]:
        return {
            "schedule": self.schedule.state(),
            "surgery": self.surgeon.state(),
            "margins": {n: o.margin.state() for n, o in self.objectives.items() if o.margin is not None},
            "first_losses": self._first_losses,
            "recent": self._recent,
            "seen": self._seen,
        }

    def _load_from_checkpoint(self, checkpoint_path: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        if self.lora is not None:
            self.lora.load(Path(checkpoint_path))
        else:
            super()._load_from_checkpoint(checkpoint_path)
        self.load_heads(Path(checkpoint_path))
        for name, average in self._averages().items():
            average.load(Path(checkpoint_path) / name)
        saved = checkpoints.read_state(Path(checkpoint_path))["fitter"]
        self.schedule.load_state(saved["schedule"])
        self.surgeon.load_state(saved["surgery"])
        for name, objective in self.objectives.items():
            if objective.margin is not None:
                objective.margin.load_state(saved["margins"][name])
        self._first_losses, self._recent, self._seen = saved["first_losses"], saved["recent"], saved["seen"]

    def load_heads(self, path: Path) -> None:
        """Take up the heads and adapters of a model directory that was trained on the same tasks."""
        for task in self.tasks:
            self.objectives[task.config.name].load(path)

    def restore(self, checkpoint: Path) -> None:
        """Take up the weights of a checkpoint that are to be used: the averages, where there are some."""
        if self.fitter.average.kind != "none" and self._averaged is None:
            self._averaged = WeightAverage(self._modules_by_name(), self.fitter.average.kind)
        self._load_from_checkpoint(str(checkpoint))
        if self._averaged is not None and self._averaged.count:
            self._averaged.copy_to_weights()

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None  # noqa: S101
        self.restore(Path(self.state.best_model_checkpoint))

    def _finalize_training(self, *args: Any, **options: Any) -> Any:
        done = super()._finalize_training(*args, **options)
        best = self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None
        if not best and self._averaged is not None and self._averaged.count:
            self._averaged.copy_to_weights()
        return done

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_optimizer_and_scheduler(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_random_state(Path(checkpoint), processes.number())
