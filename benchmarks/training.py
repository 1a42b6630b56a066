"""Examples a second of training: the fitter against the stock SentenceTransformerTrainer, same tasks, batch sizes and losses.

Quora pairs (softmax over u, v, |u - v|, u * v), STS-B (cosine regression) and NLI triplets (MultipleNegativesRankingLoss), 16
examples of each a step; all-MiniLM-L6-v2; one pass over 640 examples of each, the whole `train()` call measured: tokenizing,
both passes, optimizer. The stock trainer takes the tasks in turn and accumulates three batches a step, with torch's fused AdamW.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.measure import alternate, median_ratio, summary, timed
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.evaluation.tables import spread
from sbert_mini.model import registry

if TYPE_CHECKING:
    from sbert_mini.training.examples import Examples

EXAMPLES, BATCH = 640, 16
STEPS = EXAMPLES // BATCH
STOCK = "SentenceTransformerTrainer"


def tables(result: Json) -> list[Table]:
    """Return the table of training throughput."""
    header = (f"Quora, STS-B, NLI, {result['batch']} examples a step", "examples/s", "times faster")
    rows = tuple(
        (
            name,
            spread(entry["examples_per_s"], 1),
            f"{entry['times_faster']:.2f}",
        )
        for name, entry in result["contestants"].items()
    )
    return [Table("Training throughput", header, rows)]


def read(folder: Path | None) -> "dict[str, Examples]":
    """Return `EXAMPLES` examples of each task by its name: quora, sts, nli."""
    from sbert_mini.training.examples import read_examples

    def head(name: str, columns: list[str], label: str | None, *, graded: bool = False) -> "Examples":
        examples = read_examples([harness.data_file(folder, name)], columns, label, graded=graded)
        return examples.kept([i < EXAMPLES for i in range(len(examples))], "over the limit")

    return {
        "quora": head("quora_train.tsv.gz", ["question1", "question2"], "is_duplicate"),
        "sts": head("stsb_train.tsv.gz", ["sentence1", "sentence2"], "score", graded=True),
        "nli": head("nli_simcse_triplets.tsv.gz", ["anchor", "positive", "hard_negative"], None),
    }


def arguments(folder: str, **more: Any) -> Any:
    """Return the training arguments that both trainers share."""
    from sentence_transformers import SentenceTransformerTrainingArguments

    return SentenceTransformerTrainingArguments(
        output_dir=folder,
        learning_rate=5e-5,
        save_strategy="no",
        logging_steps=1000,
        report_to="none",
        disable_tqdm=True,
        max_steps=STEPS,
        **more,
    )


def stock(data: "Mapping[str, Examples]", folder: str) -> Callable[[], Any]:
    """Return the `train` of sentence-transformers' own trainer."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.base.sampler import MultiDatasetBatchSamplers
    from sentence_transformers.sentence_transformer import losses

    model = SentenceTransformer(str(registry.resolve(PEER_MODEL)), local_files_only=True, device="cpu")
    columns: dict[str, dict[str, list[Any]]] = {
        name: {"abc"[i]: [texts[i] for texts in examples.texts] for i in range(len(examples.texts[0]))}
        for name, examples in data.items()
    }
    columns["quora"]["label"] = [int(label) for label in data["quora"].labels or ()]
    columns["sts"]["label"] = [score / 5 for score in data["sts"].labels or ()]
    loss = {
        "quora": losses.SoftmaxLoss(model, 384, 2, concatenation_sent_multiplication=True),
        "sts": losses.CosineSimilarityLoss(model),
        "nli": losses.MultipleNegativesRankingLoss(model),
    }
    settings = arguments(
        folder,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=3,
        multi_dataset_batch_sampler=MultiDatasetBatchSamplers.ROUND_ROBIN,
    )
    datasets = {name: Dataset.from_dict(table) for name, table in columns.items()}
    return SentenceTransformerTrainer(model=model, args=settings, train_dataset=datasets, loss=loss).train


def ours(data: "Mapping[str, Examples]", surgery: str | None, folder: str) -> Callable[[], Any]:
    """Return the `train` of this project's fitter."""
    import sbert_mini
    from sbert_mini.training.config import FitterConfig
    from sbert_mini.training.task_config import TaskConfig
    from sbert_mini.training.tasks import Task
    from sbert_mini.training.trainer import MultiTaskTrainer

    tasks = [
        Task(TaskConfig("quora", "siamese", "cross-entropy"), data["quora"]),
        Task(TaskConfig("sts", "siamese", "cosine-mse", high=5.0), data["sts"]),
        Task(TaskConfig("nli", "triplet", "multiple-negatives-ranking"), data["nli"]),
    ]
    model = sbert_mini.load(str(registry.resolve(PEER_MODEL)), device="cpu")
    config = FitterConfig(batch_size=3 * BATCH, surgery=surgery, steps_per_epoch=STEPS)
    return MultiTaskTrainer(model, arguments(folder), tasks, config).train


def rate(make: Callable[[str], Callable[[], Any]]) -> float:
    """Return the examples a second of one training."""
    with tempfile.TemporaryDirectory() as folder:
        return 3 * EXAMPLES / timed(make(folder))


def main() -> None:
    options = harness.arguments(__doc__ or "", rounds=5)
    os.environ.update(OMP_NUM_THREADS=str(options.threads), TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    data = read(options.data)
    contestants: dict[str, Callable[[str], Callable[[], Any]]] = {
        STOCK: partial(stock, data),
        "MultiTaskTrainer, PCGrad": partial(ours, data, "pcgrad"),
        "MultiTaskTrainer, no surgery": partial(ours, data, None),
    }
    rates = alternate({name: partial(rate, make) for name, make in contestants.items()}, options.rounds)
    result = {
        "rounds": options.rounds,
        "examples": 3 * EXAMPLES,
        "batch": 3 * BATCH,
        "contestants": {
            name: {"examples_per_s": summary(values), "times_faster": median_ratio(values, rates[STOCK])}
            for name, values in rates.items()
        },
    }
    for name, entry in result["contestants"].items():
        print(f"{name:<32}{entry['examples_per_s']['median']:8.1f} examples/s{entry['times_faster']:7.2f}")
    harness.save("training", result, options)


if __name__ == "__main__":
    main()
