"""Speed on a GPU: `Embedder(device="cuda")` against sentence-transformers, and the fitter's step with and without surgery.

    python -m benchmarks.gpu                                     without a CUDA device: "no CUDA device; not run", exit code 1
    python -m benchmarks.gpu --device cpu --model DIR --no-save  to try the script itself

Texts are those of the package's collection, repeated. Both encoders compute in bfloat16 on a GPU that has it, and in float32 on
the CPU, in batches of `--batch-size` texts. A training step has three tasks of pairs, `--examples` each. Its time is that of the
whole step, optimizer included; the first steps are left out. Contestants alternate. Aims: 1.3 times the texts a second, and at
most 1.10 times the step.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks import harness
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.measure import alternate, median_ratio, summary, timed
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.evaluation.tables import spread

WARM_UP = 2
"""Steps of a training that are not measured."""
PEER = "sentence-transformers"
RULES = {"no surgery": None, "PCGrad": "pcgrad", "UPGrad (TorchJD)": "torchjd:UPGrad"}


def collection() -> list[str]:
    """Return the texts of the collection in the package."""
    lines = files("sbert_mini.examples").joinpath("collection.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def encoders(model: Path, device: str, texts: list[str], batch_size: int) -> dict[str, Callable[[], object]]:
    """Return the two encoders at work on the same texts, which each have been warmed up."""
    import torch
    from sentence_transformers import SentenceTransformer

    import sbert_mini

    where: dict[str, Any] = {"backend": "torch"} if device == "cpu" else {"device": device}
    ours = sbert_mini.Embedder(model, **where)
    halves = "bfloat16" in ours.backend
    kind = {"dtype": torch.bfloat16 if halves else torch.float32}
    theirs = SentenceTransformer(str(model), device=device, model_kwargs=kind, local_files_only=True)
    made: dict[str, Callable[[], object]] = {
        f"Embedder ({ours.backend})": partial(ours.encode, texts, batch_size=batch_size),
        f"{PEER} ({str(kind['dtype']).removeprefix('torch.')})": partial(
            theirs.encode, texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        ),
    }
    for run in made.values():
        run()
    return made


def step_seconds(model: Path, device: str, texts: list[str], rule: str | None, examples: int, steps: int) -> float:
    """Return the median seconds of a training step."""
    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments
    from transformers import TrainerCallback

    import sbert_mini
    from sbert_mini.training.config import FitterConfig
    from sbert_mini.training.examples import Examples
    from sbert_mini.training.task_config import TaskConfig
    from sbert_mini.training.tasks import Task
    from sbert_mini.training.trainer import MultiTaskTrainer

    spent: list[float] = []

    def now() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    class Clock(TrainerCallback):
        """Notes when each step begins and ends."""

        begun = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:  # noqa: ARG002
            self.begun = now()

        def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:  # noqa: ARG002
            spent.append(now() - self.begun)

    needed = examples * (steps + WARM_UP)
    pairs = tuple((texts[i % len(texts)], texts[(7 * i + 1) % len(texts)]) for i in range(needed))
    scores = tuple(float(i % 6) for i in range(needed))
    classes = tuple(str(i % 2) for i in range(needed))
    tasks = [
        Task(TaskConfig("same", "siamese", "cross-entropy"), Examples(pairs, classes)),
        Task(TaskConfig("sts", "siamese", "cosine-mse", high=5.0), Examples(pairs, scores)),
        Task(TaskConfig("search", "siamese", "multiple-negatives-ranking"), Examples(pairs)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            max_steps=steps + WARM_UP,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=steps + WARM_UP,
            bf16=device != "cpu",
            use_cpu=device == "cpu",
        )
        config = FitterConfig(batch_size=3 * examples, surgery=rule, steps_per_epoch=steps + WARM_UP)
        loaded = sbert_mini.load(str(model), device=device)
        MultiTaskTrainer(loaded, arguments, tasks, config, callbacks=[Clock()]).train()
    return statistics.median(spent[WARM_UP:])


def measured(
    model: Path, device: str, *, rounds: int, texts: int, batch_size: int, examples: int, steps: int
) -> dict[str, Any]:
    """Return the figures of encoders and training steps; the arguments are the options of the command."""
    known = collection()
    many = [known[i % len(known)] for i in range(texts)]
    runs = encoders(model, device, many, batch_size)
    seconds = alternate({name: partial(timed, run) for name, run in runs.items()}, rounds)
    peer = next(values for name, values in seconds.items() if name.startswith(PEER))
    of_steps = alternate(
        {name: partial(step_seconds, model, device, known, rule, examples, steps) for name, rule in RULES.items()},
        rounds,
    )
    return {
        "device": device_name(device),
        "rounds": rounds,
        "texts": texts,
        "batch_size": batch_size,
        "examples": examples,
        "steps": steps,
        "encoding": {
            name: {
                "texts_per_s": summary([texts / s for s in values]),
                "times_faster": median_ratio(peer, values),
            }
            for name, values in seconds.items()
        },
        "training": {
            name: {
                "ms": summary([1000 * s for s in values]),
                "to_no_surgery": median_ratio(values, of_steps["no surgery"]),
            }
            for name, values in of_steps.items()
        },
    }


def device_name(device: str) -> str:
    """Return the name of the card, or `cpu`."""
    import torch

    return device if device == "cpu" else torch.cuda.get_device_name(device)


def tables(result: Json) -> list[Table]:
    """Return the tables of encoding and of training steps."""
    encoding = tuple(
        (name, spread(entry["texts_per_s"], 0), f"{entry['times_faster']:.2f}")
        for name, entry in result["encoding"].items()
    )
    training = tuple(
        (name, spread(entry["ms"], 1), f"{entry['to_no_surgery']:.2f}") for name, entry in result["training"].items()
    )
    header = (f"{result['device']}, batches of {result['batch_size']}", "texts/s", "times faster")
    step = (f"{result['device']}, three tasks of {result['examples']} pairs", "ms a step", "to no surgery")
    return [Table("Encoding on a GPU", header, encoding), Table("A training step on a GPU", step, training)]


def main() -> None:
    parser = harness.parser(__doc__ or "", rounds=9)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default=PEER_MODEL, help="a directory, a built-in name or a hub id")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--examples", type=int, default=64, help="pairs of each task in a step")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    import torch

    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("no CUDA device; not run")
    from sbert_mini.model.registry import resolve

    torch.set_num_threads(options.threads)
    print(device_name(options.device), file=sys.stderr)
    result = measured(
        resolve(options.model),
        options.device,
        rounds=options.rounds,
        texts=options.texts,
        batch_size=options.batch_size,
        examples=options.examples,
        steps=options.steps,
    )
    for table in tables(result):
        print(table.markdown(), end="\n\n")
    harness.save("gpu", result, options)


if __name__ == "__main__":
    main()
