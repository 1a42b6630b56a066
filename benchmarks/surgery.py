"""The cost of gradient surgery: a step of three tasks at 22.6M parameters, without the optimizer, against other implementations.

Batches of 16 texts of 24 tokens per task, with dropout. The summed backward is the cost of training without surgery.
TorchJD and a vector-wise PCGrad in the manner of WeiChengTseng/Pytorch-PCGrad compute the same as ours. TorchJD's rules are also
measured as the fitter uses them, on our Gram matrix. Memory is the peak of a separate process that takes three steps.
"""

import argparse
import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import harness
from sbert_mini.encoder.bert import MiniBert
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.measure import alternate, median_ratio, process, processor_timed, summary, timed
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.evaluation.tables import spread
from sbert_mini.model.registry import resolve
from sbert_mini.training.gradients import GradientBuffer
from sbert_mini.training.surgery import Surgeon

TASKS, BATCH, TOKENS = 3, 16, 24
MEASURED_RULES = (
    "torchjd:PCD",
    "torchjd:UPGrad",
    "torchjd:IMTLG",
    "torchjd:MGDA",
    "torchjd:AlignedMTL",
    "torchjd:FairGrad",
)


class Setting:
    """The model, three batches and three heads; each contestant has one of its own."""

    def __init__(self, *, sparse: bool = False) -> None:
        torch.manual_seed(0)
        self.model = MiniBert.from_pretrained(resolve(PEER_MODEL)).train()
        self.model.pooler = None
        self.words = self.model.embeddings.word_embeddings
        self.words.sparse = sparse
        self.parameters = list(self.model.parameters())
        self.ids = [torch.randint(1000, 30000, (BATCH, TOKENS)) for _ in range(TASKS)]
        self.heads = [nn.Linear(384, 2) for _ in range(TASKS)]
        self.step = 0

    def loss(self, task: int) -> Tensor:
        """Return the loss of a task's batch."""
        vectors = self.model(self.ids[task]).last_hidden_state.mean(dim=1)
        target = torch.arange(BATCH) % 2
        loss: Tensor = nn.functional.cross_entropy(self.heads[task](vectors), target)
        return loss

    def clear(self) -> None:
        """Begin a step."""
        self.step += 1
        for parameter in self.parameters:
            parameter.grad = None


def summed(setting: Setting) -> None:
    setting.clear()
    for task in range(TASKS):
        torch.autograd.backward(setting.loss(task))


class Ours:
    """Capture in the flat buffer, Gram matrix, weights, one weighted sum."""

    def __init__(self, setting: Setting, rule: str = "pcgrad") -> None:
        self.setting = setting
        self.surgeon = Surgeon(rule, 0, [1.0] * TASKS)
        tables = [setting.words.weight] if setting.words.sparse else []
        self.buffer = GradientBuffer(setting.parameters, TASKS, tables)  # type: ignore[arg-type]

    def __call__(self) -> None:
        """Take a step."""
        self.setting.clear()
        for task in range(TASKS):
            with self.buffer.capture(task):
                torch.autograd.backward(self.setting.loss(task))
        self.buffer.combine(self.surgeon.weights(self.buffer.gram(), self.setting.step))


def torchjd(setting: Setting, chunk: int | None) -> None:
    from torchjd.aggregation import PCGrad
    from torchjd.autojac import backward, jac_to_grad

    setting.clear()
    losses = [setting.loss(task) for task in range(TASKS)]
    backward(losses, inputs=setting.parameters, parallel_chunk_size=chunk)
    jac_to_grad(setting.parameters, PCGrad())


def vectors(setting: Setting) -> None:
    """Algorithm 1 on full vectors, a copy a task and a projection a pair."""
    gradients = []
    for task in range(TASKS):
        setting.clear()
        torch.autograd.backward(setting.loss(task))
        gradients.append(torch.cat([p.grad.flatten() for p in setting.parameters if p.grad is not None]))
    projected = [g.clone() for g in gradients]
    for i, g in enumerate(projected):
        order = [j for j in range(TASKS) if j != i]
        random.shuffle(order)
        for j in order:
            inner = g @ gradients[j]
            if inner < 0:
                g.sub_(inner / gradients[j].square().sum() * gradients[j])
    total = torch.stack(projected).sum(dim=0)
    for parameter, part in zip(
        setting.parameters, torch.split(total, [p.numel() for p in setting.parameters]), strict=True
    ):
        parameter.grad = part.view(parameter.shape)


CONTESTANTS: dict[str, Callable[[], Callable[[], Any]]] = {
    "summed backward": lambda: partial(summed, Setting()),
    "summed backward, sparse table": lambda: partial(summed, Setting(sparse=True)),
    "ours": lambda: Ours(Setting(sparse=True)),
    "ours, dense table": lambda: Ours(Setting()),
    **{f"ours, {rule}": partial(lambda rule: Ours(Setting(sparse=True), rule), rule) for rule in MEASURED_RULES},
    "TorchJD": lambda: partial(torchjd, Setting(), None),
    "TorchJD, one task at a time": lambda: partial(torchjd, Setting(), 1),
    "PCGrad on vectors": lambda: partial(vectors, Setting()),
}


def tables(result: Json) -> list[Table]:
    """Return the table of what surgery costs."""
    setting = f"{result['tasks']} tasks of {result['batch']} texts of {result['tokens']} tokens"
    setting += f", {result['parameters'] / 1e6:.1f}M parameters"
    rows = tuple(
        (
            name,
            spread(entry["ms"], 0),
            f"{entry['to_summed']:.2f}",
            f"{entry['peak_bytes'] / 1e6:.0f} MB",
        )
        for name, entry in result["contestants"].items()
    )
    ratio = {name: entry["to_summed"] for name, entry in result["contestants"].items()}
    sparse = ratio["ours"] / ratio["summed backward, sparse table"]
    note = (
        f"Like for like: {sparse:.2f} where both have sparse gradients of the word table, "
        f"{ratio['ours, dense table']:.2f} where both have dense ones."
    )
    unit = "processor ms a step" if result.get("clock") == "processor" else "ms a step"
    header = (setting, unit, "to the summed backward", "peak memory")
    return [Table("The cost of gradient surgery", header, rows, (note,))]


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--memory-of":
        torch.set_num_threads(int(sys.argv[3]))
        run = CONTESTANTS[sys.argv[2]]()
        for _ in range(3):
            run()
        return
    parser = harness.parser(__doc__ or "", rounds=15)
    parser.add_argument(
        "--clock", choices=("wall", "processor"), default="wall", help="processor: on a machine that is in use"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        choices=tuple(CONTESTANTS),
        default=list(CONTESTANTS),
        help="these alone; prints, and saves nothing",
    )
    options: argparse.Namespace = parser.parse_args()
    options.no_save |= len(options.only) < len(CONTESTANTS)
    torch.set_num_threads(options.threads)
    runs = {name: make() for name, make in CONTESTANTS.items() if name in {"summed backward", *options.only}}
    for run in runs.values():
        run()
    clock = processor_timed if options.clock == "processor" else timed
    seconds = alternate({name: partial(clock, run) for name, run in runs.items()}, options.rounds)
    base = seconds["summed backward"]
    result = {
        "rounds": options.rounds,
        "clock": options.clock,
        "tasks": TASKS,
        "batch": BATCH,
        "tokens": TOKENS,
        "parameters": sum(p.numel() for p in Setting().parameters),
        "contestants": {
            name: {
                "ms": {key: 1000 * value for key, value in summary(values).items()},
                "to_summed": median_ratio(values, base),
                "peak_bytes": process(
                    [sys.executable, "-m", "benchmarks.surgery", "--memory-of", name, str(options.threads)]
                )[1],
            }
            for name, values in seconds.items()
        },
    }
    for name, entry in result["contestants"].items():
        print(f"{name:<32}{entry['ms']['median']:8.0f} ms{entry['to_summed']:7.2f}{entry['peak_bytes'] / 1e6:8.0f} MB")
    harness.save("surgery", result, options)


if __name__ == "__main__":
    main()
