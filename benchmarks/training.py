"""Examples a second of training: the fitter against the stock SentenceTransformerTrainer, same tasks, batch sizes and losses.

Quora pairs (softmax over u, v, |u - v|, u * v), STS-B (cosine regression) and NLI triplets (MultipleNegativesRankingLoss), 16
examples of each a step; all-MiniLM-L6-v2; one pass over 640 examples of each, the whole `train()` call measured: tokenizing,
both passes, optimizer. The stock trainer takes the tasks in turn and accumulates three batches a step, with torch's fused AdamW.
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import harness
from sbert_mini.evaluation.measure import alternate, median_ratio, summary, timed
from sbert_mini.evaluation.tables import Json, Table

EXAMPLES, BATCH = 640, 16


def tables(result: Json) -> list[Table]:
    """Return the table of training throughput."""
    header = (f"Quora, STS-B, NLI, {result['batch']} examples a step", "examples/s", "times faster")
    rows = tuple(
        (
            name,
            "{median:.1f} [{low:.1f}-{high:.1f}]".format(**entry["examples_per_s"]),
            f"{entry['times_faster']:.2f}",
        )
        for name, entry in result["contestants"].items()
    )
    return [Table("Training throughput", header, rows)]


def main() -> None:
    options = harness.arguments(__doc__ or "", rounds=5)
    os.environ.update(OMP_NUM_THREADS=str(options.threads), TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.sampler import MultiDatasetBatchSamplers
    from sentence_transformers.sentence_transformer import losses
    from transformers.utils import logging

    import sbert_mini
    from sbert_mini.model import registry
    from sbert_mini.training.config import FitterConfig
    from sbert_mini.training.examples import Examples, read_examples
    from sbert_mini.training.task_config import TaskConfig
    from sbert_mini.training.tasks import Task
    from sbert_mini.training.trainer import MultiTaskTrainer

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)

    def read(name: str, columns: list[str], label: str | None, *, graded: bool = False) -> Examples:
        held = read_examples([harness.data_file(options.data, name)], columns, label, graded=graded)
        return held.kept([i < EXAMPLES for i in range(len(held))], "over the limit")

    quora = read("quora_train.tsv.gz", ["question1", "question2"], "is_duplicate")
    sts = read("stsb_train.tsv.gz", ["sentence1", "sentence2"], "score", graded=True)
    nli = read("nli_simcse_triplets.tsv.gz", ["anchor", "positive", "hard_negative"], None)
    tasks = [
        Task(TaskConfig("quora", "siamese", "cross-entropy"), quora),
        Task(TaskConfig("sts", "siamese", "cosine-mse", high=5.0), sts),
        Task(TaskConfig("nli", "triplet", "multiple-negatives-ranking"), nli),
    ]
    path = str(registry.resolve("all-MiniLM-L6-v2"))
    steps = EXAMPLES // BATCH

    def arguments(folder: str, **more: Any) -> SentenceTransformerTrainingArguments:
        return SentenceTransformerTrainingArguments(
            output_dir=folder,
            learning_rate=5e-5,
            save_strategy="no",
            logging_steps=1000,
            report_to="none",
            disable_tqdm=True,
            max_steps=steps,
            **more,
        )

    def stock(folder: str) -> Callable[[], Any]:
        model = SentenceTransformer(path, local_files_only=True, device="cpu")
        columns = {
            "quora": {"a": [t[0] for t in quora.texts], "b": [t[1] for t in quora.texts],
                      "label": [int(x) for x in quora.labels or ()]},
            "sts": {"a": [t[0] for t in sts.texts], "b": [t[1] for t in sts.texts],
                    "label": [x / 5 for x in sts.labels or ()]},
            "nli": {n: [t[i] for t in nli.texts] for i, n in enumerate(("a", "b", "c"))},
        }  # fmt: skip
        softmax = losses.SoftmaxLoss(model, 384, 2, concatenation_sent_multiplication=True)
        loss = {
            "quora": softmax,
            "sts": losses.CosineSimilarityLoss(model),
            "nli": losses.MultipleNegativesRankingLoss(model),
        }
        args = arguments(
            folder,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=3,
            multi_dataset_batch_sampler=MultiDatasetBatchSamplers.ROUND_ROBIN,
        )
        held = {name: Dataset.from_dict(data) for name, data in columns.items()}
        trainer = SentenceTransformerTrainer(model=model, args=args, train_dataset=held, loss=loss)
        return trainer.train

    def ours(folder: str, surgery: str | None) -> Callable[[], Any]:
        model = sbert_mini.load(path, device="cpu")
        config = FitterConfig(batch_size=3 * BATCH, surgery=surgery, steps_per_epoch=steps)
        return MultiTaskTrainer(model, arguments(folder), tasks, config).train

    def rate(make: Callable[[str], Callable[[], Any]]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            run = make(str(Path(folder)))
            return 3 * EXAMPLES / timed(run)

    contestants: dict[str, Callable[[str], Callable[[], Any]]] = {
        "SentenceTransformerTrainer": stock,
        "MultiTaskTrainer, PCGrad": lambda folder: ours(folder, "pcgrad"),
        "MultiTaskTrainer, no surgery": lambda folder: ours(folder, None),
    }
    rates = alternate({name: partial(rate, make) for name, make in contestants.items()}, options.rounds)
    base = rates["SentenceTransformerTrainer"]
    result = {
        "rounds": options.rounds,
        "examples": 3 * EXAMPLES,
        "batch": 3 * BATCH,
        "contestants": {
            name: {"examples_per_s": summary(values), "times_faster": median_ratio(values, base)}
            for name, values in rates.items()
        },
    }
    for name, found in result["contestants"].items():
        print(f"{name:<32}{found['examples_per_s']['median']:8.1f} examples/s{found['times_faster']:7.2f}")
    harness.save("training", result, options)


if __name__ == "__main__":
    main()
