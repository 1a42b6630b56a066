"""The multi-task fitter: sentence-transformers' trainer, with a sub-batch of every task in each step and gradient surgery."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback

from sbert_mini.encoder.module import MiniBertModule, MiniSentenceTransformer
from sbert_mini.errors import TrainingError, UsageError
from sbert_mini.training import processes
from sbert_mini.training.allocation import Lacks
from sbert_mini.training.base_fitter import BREGMAN_FILE, AfterStep, BaseFitter
from sbert_mini.training.batches import Collator, TaskRows, embed, loader_of, task_rows
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.gradients import GradientBuffer
from sbert_mini.training.lora import Lora
from sbert_mini.training.objective import Objective
from sbert_mini.training.optimizers import make_optimizer
from sbert_mini.training.rates import depth, set_trained, unfrozen_depth
from sbert_mini.training.regularization import regularizers
from sbert_mini.training.schedule import BundleSampler
from sbert_mini.training.setup import check_arguments, make_evaluator, make_schedule, warn_without_dropout
from sbert_mini.training.surgery import Surgeon
from sbert_mini.training.task_loss import task_loss
from sbert_mini.training.tasks import Task
from sbert_mini.training.telemetry import Telemetry


class MultiTaskTrainer(BaseFitter):
    """Fits a model to several tasks at once.

    Each optimizer step holds a sub-batch of every task. A task's gradient on the encoder is taken by itself; a rule of gradient
    surgery combines them; the heads' gradients are added up and never projected, since no two tasks share a head. All texts of a
    sub-batch go through the encoder in one forward pass, with texts of like length, or a column at a time where columns differ.

    Everything else is `SentenceTransformerTrainer`'s: arguments, mixed precision, gradient accumulation, learning-rate
    schedules, callbacks, early stopping. `BaseFitter` keeps the run.

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
        all_tasks = [task.trained() for task in tasks]
        self.tasks = [task for task in all_tasks if not task.only_measured]
        self.measured_tasks = [task.config for task in all_tasks]
        self.objectives = {task.config.name: Objective(task, model) for task in all_tasks}
        weights = [task.config.weight for task in self.tasks]
        self.surgeon = Surgeon(self.fitter.surgery or "sum", args.seed if args is not None else 42, weights)
        self.lora = Lora(model[0].model, self.fitter.lora) if self.fitter.lora is not None else None
        self.averages, trained = {}, [task.config for task in self.tasks]
        warn_without_dropout(model[0].model, trained, self.fitter)
        self.telemetry = Telemetry([config.name for config in trained])
        self._encoder: MiniBertModule = model[0]
        self._rows: list[TaskRows] = []
        self._sampler: BundleSampler | None = None
        self._buffer: GradientBuffer | None = None
        self._lacks = Lacks(trained)
        self._regularizers = regularizers(self.fitter.regularization, trained)
        tokenizer = model[0].text_tokenizer
        self._embed = partial(embed, model, pad_id=tokenizer.pad_id)
        super().__init__(
            model=model,
            args=args,
            loss=nn.ModuleDict({f"task_{name}": o for name, o in self.objectives.items()}),
            evaluator=make_evaluator(all_tasks, self.fitter, self.objectives, tokenizer, self._embed),
            **options,
        )
        check_arguments(self.args, self.fitter.batch_size, self.is_fsdp_enabled or self.is_deepspeed_enabled)
        self.add_callback(AfterStep(self))
        self.remove_callback(PrinterCallback)  # it prints to stdout, which is for data
        self.schedule = make_schedule(self.tasks, self.fitter, self.args, self.steps_per_epoch)
        if self.fitter.encoder == "frozen":
            self.model.requires_grad_(False)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        examples = sum(len(task.train) for task in self.tasks)
        return self.fitter.steps_per_epoch or math.ceil(examples / self.fitter.batch_size)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return batches that hold a sub-batch of every task; see `schedule.BundleSampler`."""
        if not self._rows:
            frozen = self.fitter.encoder == "frozen"
            self.model.train(self.model.training and not frozen)
            fixed = self._embed if frozen else None
            with self.accelerator.autocast(), self.telemetry.preparing():  # in the precision of the steps
                self._rows = [task_rows(task, self._encoder.text_tokenizer, fixed) for task in self.tasks]
        self._sampler = BundleSampler(
            self.schedule,
            [len(task.train) for task in self.tasks],
            [rows.lengths if self.fitter.length_batches else None for rows in self._rows],
            self.steps_per_epoch,
            self.args.seed,
            [rows.keys for rows in self._rows],
        )
        collator = Collator(self._rows, self._encoder.text_tokenizer.pad_id, self._regularizers)
        return loader_of(self._sampler, collator, self.steps_per_epoch * self.fitter.batch_size)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:  # noqa: ARG002
        """Return the optimizer: the encoder's and the heads' parameters, each with and without decay."""
        if getattr(self, "optimizer", None) is None:
            heads, encoder = self.objectives.values(), self._encoder.model
            self.optimizer: Any = make_optimizer(self.fitter, self.args, self.model, heads, encoder)
        return self.optimizer

    @property
    def _layers(self) -> int:
        return self._encoder.model.config.num_hidden_layers

    def train(self, *args: Any, **options: Any) -> Any:
        """Train, as `SentenceTransformerTrainer.train`; several processes start from the first one's weights."""
        processes.agree(self.modules_by_name().values())
        self.start_averages()
        self.telemetry.start_clock()
        if processes.number():
            torch.manual_seed(self.args.seed + processes.number())  # other dropout masks than the first one's
        return super().train(*args, **options)

    @contextmanager
    def _captured(self, task: int) -> Iterator[None]:
        """Capture inside the gradient of a task on the encoder, where gradients are combined."""
        if self.fitter.surgery is None or self.fitter.encoder == "frozen" or len(self.tasks) < 2:
            yield
            return
        if self._buffer is None:
            words = self._encoder.model.embeddings.word_embeddings
            shared: list[Any] = [p for p in self.model.parameters() if p.requires_grad]
            tables: list[Any] = [words.weight] if words.sparse and words.weight.requires_grad else []
            self._buffer = GradientBuffer(shared, len(self.tasks), tables)
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
        losses = [self.loss_of(model, task, batch) for task, batch in zip(self.tasks, inputs["tasks"], strict=True)]
        total = torch.stack([t.config.weight * x for t, x in zip(self.tasks, losses, strict=True)]).sum()
        return (total, {"losses": losses}) if return_outputs else total

    def loss_of(self, model: nn.Module, task: Task, batch: Mapping[str, Any]) -> Tensor:
        """Return a task's loss on its part of a batch, regularizers included, unweighted. Shapes: the result ()."""
        name = task.config.name
        teacher = self.averages.get(BREGMAN_FILE)
        hidden = self._encoder.model.config.hidden_size
        rules = self._regularizers.get(name, [])
        return task_loss(model, self.objectives[name], batch, hidden, rules, teacher.in_place if teacher else None)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Tensor:
        """Back-propagate each task by itself, and at the last micro-batch of a step combine the gradients on the encoder."""
        self._unfreeze()
        model.train(self.fitter.encoder == "trained")
        for objective in self.objectives.values():
            objective.train()
        inputs = self._prepare_inputs(inputs)
        progress = self.state.global_step / max(self.state.max_steps, 1)
        total = torch.zeros((), device=self.args.device)
        for number, (task, batch) in enumerate(zip(self.tasks, inputs["tasks"], strict=True)):
            name, margin = task.config.name, self.objectives[task.config.name].margin
            if margin is not None:
                margin.advance(progress)
            # Without `no_sync` several processes' gradients would be averaged after projection, which is another step.
            with self._captured(number), self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self.loss_of(model, task, batch)
                scaled = task.config.weight * loss / self.current_gradient_accumulation_steps
                self.accelerator.backward(scaled)
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss of the task {name!r} is {value} at step {self.state.global_step + 1}: lower the learning rate, or "
                    "look at the task's data"
                )
            total += scaled.detach()
            self.telemetry.note_loss(name, value, batch["examples"], margin.value if margin is not None else None)
            self._lacks.note_loss(name, value)
        if self.accelerator.sync_gradients:
            self._combine_gradients()
        return total

    def _unfreeze(self) -> None:
        """Train one more layer where it is its turn."""
        if self.fitter.unfreeze_every:
            least = unfrozen_depth(self.state.global_step, self.fitter.unfreeze_every, self._layers)
            if set_trained(dict(self.model.named_parameters()), least, self._layers):
                self._buffer = None

    def _combine_gradients(self) -> None:
        """Replace each gradient by its mean over the processes, and the tasks' gradients on the encoder by their combination."""
        if processes.count() > 1:
            modules: list[nn.Module] = [*self.objectives.values()]
            if self._buffer is not None:
                processes.average(self._buffer.gradients())
            else:
                modules.append(self.model)
            processes.average(p.grad for m in modules for p in m.parameters() if p.grad is not None)
        if self._buffer is None:
            return
        gram = self._buffer.gram()
        weights = self.surgeon.weights(gram, self.state.global_step)
        self.telemetry.note_surgery(gram, weights)
        if (self.state.global_step + 1) % max(int(self.args.logging_steps), 1) == 0:
            depths = {id(p): depth(name, self._layers) for name, p in self.model.named_parameters()}
            self.telemetry.note_layers(self._buffer.grams([depths[id(p)] for p in self._buffer.dense]))
        self._buffer.combine(weights)

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
                self.after_evaluation({})
        super()._run_epoch(epoch=epoch, **options)

    def after_evaluation(self, figures: Mapping[str, float | None]) -> None:
        """Move a `dynamic` schedule by what each task lacks."""
        if self.fitter.schedule == "dynamic" and self._sampler is not None:
            self.schedule.reallocate(self._lacks.take(figures), self._sampler.next_batch)

    def fitter_state(self) -> dict[str, Any]:
        """Return the state of schedule, surgery, margins and telemetry, as JSON holds it."""
        return {
            "schedule": self.schedule.state(),
            "surgery": self.surgeon.state(),
            "margins": {n: o.margin.state() for n, o in self.objectives.items() if o.margin is not None},
            "seen": self.telemetry.state(),
            **self._lacks.state(),
        }

    def load_fitter_state(self, state: Mapping[str, Any]) -> None:
        """Restore from `fitter_state()`."""
        self.schedule.load_state(state["schedule"])
        self.surgeon.load_state(state["surgery"])
        for name, objective in self.objectives.items():
            if objective.margin is not None:
                objective.margin.load_state(state["margins"][name])
        self.telemetry.load_state(state["seen"])
        self._lacks.load_state(state)
