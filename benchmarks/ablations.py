"""Does gradient surgery help sentence embeddings? One encoder for SST-5, Quora and STS-B, one arm at a time: `make ablations`.

    python -m benchmarks.ablations                          run every missing arm, and write the figures
    python -m benchmarks.ablations --only surgery losses    run some groups; two commands may run side by side
    python -m benchmarks.ablations --only                   run nothing: collect the figures, and draw them

Every arm of a group trains on as many examples of each task as the group's other arms. (Where allocation is compared,
the number of all tasks together is the same.) Training starts from all-MiniLM-L6-v2, with three seeds. The encoder
sees each text alone (Siamese), so the trained model is a sentence embedding. Exceptions are documented at their arms.
Figures are those of the last step on the dev sets; Quora: the first 2,000 dev rows. 12 of STS-B's 5,749 training
pairs also occur in its dev set, and every arm trains on them. Each run has its own file in build/ablations, so the
same command continues after an interruption. results/ablations.json and .png are made from these files.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import RESULTS, START_NOTE
from sbert_mini.evaluation import figures
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.log_keys import CONFLICT, EVAL_MEAN, figures_in
from sbert_mini.evaluation.measure import machine
from sbert_mini.evaluation.table import Json, Table

FOLDER = Path("build/ablations")
SEEDS = (1, 2, 3)
BATCH = 24
PRECISION = "bf16"
HEAD = """
[data]
folder = "$SBMINI_DATA"
[model]
start = "{start}"
output = "model"
[train]
steps = {steps}
batch_size = {batch}
precision = "{precision}"
surgery = "{surgery}"
schedule = "{schedule}"
log_every = 10
[evaluation]
every = {every}
"""
TASKS = ("sst", "quora", "sts")
STSB_DEV = "stsb_dev.tsv.gz"


@dataclass(frozen=True)
class Arm:
    """What is run with each seed.

    Attributes:
        group: arms of a group are compared with each other.
        run: a seed and the number of steps of the group -> the dev figures, and the share of steps in which two tasks' gradients
            conflicted, by pair, where it is known.
    """

    group: str
    run: Callable[[int, int], dict[str, float]]


def recipe(names: Sequence[str] = TASKS, loss: str = "cosine-mse", more: str = "", **settings: Any) -> str:
    """Return a recipe of some of the tasks.

    STS-B is measured by a task of its own, so that every loss is measured alike.

    Args:
        names: of `TASKS`.
        loss: of STS-B.
        more: lines of STS-B's task.
        settings: fill `HEAD`.
    """
    values = {"start": PEER_MODEL, "batch": BATCH, "surgery": "pcgrad", "schedule": "round-robin"} | settings
    values["precision"] = PRECISION
    values.setdefault("every", values["steps"])
    made = {
        "sst": harness.sst(drop_overlap=True),
        "quora": harness.quora(drop_overlap=True),
        "sts": harness.stsb("sts", loss, train="stsb_train.tsv.gz") + more + harness.stsb("dev", dev=STSB_DEV),
    }
    return HEAD.format(**values) + "".join(made[name] for name in names)


def fitted(text: str, seed: int, folder: Path) -> dict[str, float]:
    """Fit by a recipe in `folder`, and return the dev figures and the shares of conflicting steps."""
    from sbert_mini.recipes.fit import fit
    from sbert_mini.recipes.plan import prepare
    from sbert_mini.recipes.reader import read_recipe

    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(text, "utf-8")
    plan = prepare(read_recipe(folder / "recipe.toml"))
    fit(plan, seed=seed)
    lines = [json.loads(line) for line in (plan.run / "log.jsonl").read_text("utf-8").splitlines()]
    logged = [line for line in lines if "loss" in line]
    names = [key for key in logged[0] if key.startswith(CONFLICT)]
    last = [line for line in lines if EVAL_MEAN in line][-1]
    return renamed(last) | {key: statistics.fmean(line[key] for line in logged) for key in names}


def renamed(evaluated: Mapping[str, float]) -> dict[str, float]:
    """Return the figures that are compared, the STS-B dev set's under `sts`."""
    names = {"sst_accuracy": "sst", "quora_accuracy": "quora", "dev_pearson": "sts", "dev_spearman": "sts_spearman"}
    measured = figures_in(evaluated)
    return {name: measured[key] for key, name in names.items() if key in measured}


def joint(**settings: Any) -> Callable[[int, int], dict[str, float]]:
    """Return an arm that trains on all tasks at once, or on those named."""

    def run(seed: int, steps: int) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            return fitted(recipe(steps=steps, **settings), seed, Path(folder) / "joint")

    return run


def single(seed: int, steps: int) -> dict[str, float]:
    """Train a model a task, with the batches and the steps that the task has in the joint arms: three encoders."""
    figures_by_task: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in TASKS:
            text = recipe([name], steps=steps, batch=BATCH // len(TASKS))
            figures_by_task |= fitted(text, seed, Path(folder) / name)
    return figures_by_task


def sequential(seed: int, steps: int) -> dict[str, float]:
    """Train one model on one task after the other, a third of the steps each in batches of one task, and measure all at the end.

    Each head stays as its own task left it. The encoder takes as many steps as in the joint arms, a head a third of them.
    """
    import torch
    from transformers import set_seed

    from sbert_mini.recipes.plan import prepare
    from sbert_mini.recipes.reader import read_recipe
    from sbert_mini.recipes.settings import training_arguments
    from sbert_mini.training.trainer import MultiTaskTrainer

    with tempfile.TemporaryDirectory() as folder:
        heads: dict[str, dict[str, torch.Tensor]] = {}
        file = Path(folder) / "recipe.toml"
        model = None
        set_seed(seed)  # the first head is made before the trainer sets it
        for names in (*((name,) for name in TASKS), TASKS):
            file.write_text(recipe(names, steps=round(steps / 3)), "utf-8")
            plan = prepare(read_recipe(file))
            (phase,) = plan.phases
            model = plan.start.load() if model is None else model
            off = {"load_best_model_at_end": False, "save_strategy": "no", "eval_strategy": "no"}
            settings = training_arguments(phase, seed, Path(folder) / "run", **off)
            trainer = MultiTaskTrainer(model, settings, plan.tasks, phase.fitter)
            if names != TASKS:
                trainer.train()
                heads |= {task: objective.state_dict() for task, objective in trainer.objectives.items()}
        for task, objective in trainer.objectives.items():
            objective.load_state_dict(heads[task])
        return renamed(trainer.evaluate())


def sentence_bert(seed: int, steps: int) -> dict[str, float]:
    """SentenceBERT's own losses in the stock trainer: SoftmaxLoss on Quora, then cosine regression on STS-B, a third each.

    The vectors are not normalised, as theirs were not. SST-5's single sentences have no place in it, and its share of the steps
    is left out. Rates, warm-up, batches and weight decay are those of the other arms.
    """
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from torch.nn import functional

    from sbert_mini.evaluation.sts import pearson, spearman
    from sbert_mini.model import registry
    from sbert_mini.recipes.plan import prepare
    from sbert_mini.recipes.reader import read_recipe

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.toml"
        file.write_text(recipe(("quora", "sts"), steps=steps), "utf-8")
        quora, sts, dev = prepare(read_recipe(file)).tasks
        torch.manual_seed(seed)
        whole = SentenceTransformer(str(registry.resolve(PEER_MODEL)))
        model = SentenceTransformer(modules=[whole[0], whole[1]])  # without Normalize
        softmax = losses.SoftmaxLoss(model, model.get_embedding_dimension() or 0, num_labels=2)
        for task, loss in ((quora, softmax), (sts, losses.CosineSimilarityLoss(model))):
            first, second = zip(*task.train.texts, strict=True)
            targets = task.targets(task.train)
            assert targets is not None
            rows = Dataset.from_dict({"first": first, "second": second, "label": targets.tolist()})
            arguments = SentenceTransformerTrainingArguments(
                output_dir=str(Path(folder) / "run"),
                max_steps=round(steps / 3),
                per_device_train_batch_size=BATCH,
                learning_rate=5e-5,
                learning_rate_mapping={"classifier": 1e-3} if loss is softmax else {},
                weight_decay=0.01,
                warmup_steps=round(steps / 30),
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                bf16=True,
                use_cpu=not torch.cuda.is_available(),
                seed=seed,
            )
            SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss).train()

        def vectors(texts: Any) -> list[torch.Tensor]:
            return [torch.from_numpy(model.encode(list(column))) for column in zip(*texts, strict=True)]

        assert quora.dev is not None
        assert dev.dev is not None
        u, v = vectors(quora.dev.texts)
        with torch.no_grad():
            predicted = softmax.classifier.cpu()(torch.cat([u, v, (u - v).abs()], dim=1)).argmax(dim=1)
        truth = quora.targets(quora.dev)
        u, v = vectors(dev.dev.texts)
        cosine = functional.cosine_similarity(u, v).numpy()
        gold = dev.targets(dev.dev)
        assert truth is not None
        assert gold is not None
        return {
            "quora": float((predicted == truth).float().mean()),
            "sts": pearson(cosine, gold.numpy()) or 0.0,
            "sts_spearman": spearman(cosine, gold.numpy()) or 0.0,
        }


def cosine_embedding(margin: str) -> Callable[[int, int], dict[str, float]]:
    """Return an arm that trains on STS-B alone with CosineEmbeddingLoss."""
    return joint(names=("sts",), loss="cosine-embedding", more=f"[task.margin]\n{margin}")


OWN_DEV = f'dev = "{STSB_DEV}"'
"""STS-B's dev set as the trained task's own, for the schedule that moves by dev figures."""
STEPS = {"surgery": 500, "allocation": 150, "losses": 150}
"""Steps of each group, of `BATCH` examples."""
ARMS: dict[str, Arm] = {
    "three models, one a task": Arm("surgery", single),
    "one task after the other": Arm("surgery", sequential),
    "sum of losses": Arm("surgery", joint(surgery="sum")),
    "PCGrad": Arm("surgery", joint()),
    "GradVac": Arm("surgery", joint(surgery="gradvac")),
    "sum of gradients of one length": Arm("surgery", joint(surgery="sum-normalized")),
    "PCGrad on gradients of one length": Arm("surgery", joint(surgery="pcgrad-normalized")),
    "SoftmaxLoss, then cosine regression (stock trainer)": Arm("surgery", sentence_bert),
    "round-robin": Arm("allocation", joint(every=50, more=OWN_DEV)),
    "proportional": Arm("allocation", joint(schedule="proportional", every=50, more=OWN_DEV)),
    "dynamic, by dev figures": Arm("allocation", joint(schedule="dynamic", every=50, more=OWN_DEV)),
    "CosineEmbeddingLoss, margin 0.5": Arm("losses", cosine_embedding('rule = "fixed"\nvalue = 0.5')),
    "CosineEmbeddingLoss, margin 0.7 to 0.2": Arm("losses", cosine_embedding('rule = "scheduled"')),
    "CosineEmbeddingLoss, margin by hard negatives": Arm("losses", cosine_embedding('rule = "hard-negatives"')),
    "MultipleNegativesRankingLoss, on scores of 4 or more": Arm(
        "losses", joint(names=("sts",), loss="multiple-negatives-ranking", more="positive = 4")
    ),
    "CoSENT": Arm("losses", joint(names=("sts",), loss="cosent")),
    "cosine regression (MSE)": Arm("losses", joint(names=("sts",), loss="cosine-mse")),
}


SEVERAL = ("three models, one a task",)
"""Arms whose figures are of several models: they have no mean."""


def mean_of(dev_figures: Mapping[str, float]) -> float | None:
    """Return the paper's Model Acc, (SST + Quora + (Pearson + 1) / 2) / 3; None where a task is missing."""
    if not {"sst", "quora", "sts"} <= set(dev_figures):
        return None
    return (dev_figures["sst"] + dev_figures["quora"] + (dev_figures["sts"] + 1) / 2) / 3


def collected(folder: Path) -> dict[str, Any]:
    """Return each group's arms with their runs, and each figure's mean and standard deviation over the seeds."""
    groups: dict[str, Any] = {
        name: {"steps": steps, "examples_a_step": BATCH, "arms": {}} for name, steps in STEPS.items()
    }
    for name, arm in ARMS.items():
        runs = []
        for seed in SEEDS:
            file = folder / file_name(name, seed)
            if file.is_file():
                runs.append(json.loads(file.read_text("utf-8")))
        if not runs:
            continue
        if any(run["steps"] != STEPS[arm.group] for run in runs):
            sys.exit(f"{folder} holds runs of {name!r} of another number of steps: delete them")
        for run in runs:
            mean = mean_of(run["figures"]) if name not in SEVERAL else None
            run["figures"] |= {"model_acc": mean} if mean is not None else {}
        spread = {}
        for key in runs[0]["figures"]:
            values = [run["figures"][key] for run in runs]
            spread[key] = {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values) if len(values) > 1 else None,
            }
        groups[arm.group]["arms"][name] = {"figures": spread, "runs": runs}
    return {name: group for name, group in groups.items() if group["arms"]}


def file_name(arm: str, seed: int) -> str:
    """Return the name of the file of a run."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in arm) + f".{seed}.json"


COLUMNS = {
    "sst": "SST-5",
    "quora": "Quora",
    "sts": "STS-B Pearson",
    "sts_spearman": "STS-B Spearman",
    "model_acc": "mean",
}


def tables(result: Json) -> list[Table]:
    """Return a table for each group of arms: mean and standard deviation over the seeds."""
    made = []
    for name, group in result["groups"].items():
        keys = [key for key in COLUMNS if any(key in arm["figures"] for arm in group["arms"].values())]
        rows = tuple(
            (arm, str(len(entry["runs"])), *(_mean_and_spread(entry["figures"].get(key)) for key in keys))
            for arm, entry in group["arms"].items()
        )
        title = f"{name}: {group['steps']} steps of {group['examples_a_step']}"
        made.append(Table(title, (title, "seeds", *(COLUMNS[key] for key in keys)), rows))
    return [*made[:-1], replace(made[-1], notes=(result["note"],))]


def _mean_and_spread(entry: Mapping[str, float | None] | None) -> str:
    if entry is None:
        return ""
    spread = f" ± {entry['std']:.4f}" if entry["std"] is not None else ""
    return f"{entry['mean']:.4f}{spread}"


def picture(groups: Json) -> bytes:
    """Return the ablations: a row a group, a panel a figure, a point a seed and a line at each arm's mean.

    Args:
        groups: name -> `steps` and `arms`: an arm's name -> `figures` (`mean` each) and `runs` (`figures` each).
    """
    heights = [0.32 * len(group["arms"]) + 1.1 for group in groups.values()]
    figure, axes = figures.new_figure(13, sum(heights), len(groups), len(COLUMNS), heights)
    for row, (title, group) in zip(axes, groups.items(), strict=True):
        labels = list(group["arms"])
        shown = [key for key in COLUMNS if any(key in arm["figures"] for arm in group["arms"].values())]
        for axis, key in zip(row, shown, strict=False):
            for number, arm in enumerate(group["arms"].values()):
                if key in arm["figures"]:
                    color = figures.COLORS[number % len(figures.COLORS)]
                    values = [run["figures"][key] for run in arm["runs"]]
                    axis.scatter(values, [number] * len(values), s=18, alpha=0.6, color=color, linewidths=0)
                    axis.scatter([arm["figures"][key]["mean"]], [number], marker="|", s=160, color=color)
            axis.set_yticks(range(len(labels)), labels if axis is row[0] else [""] * len(labels))
            axis.set_ylim(len(labels) - 0.5, -0.5)
            axis.set_title(f"{COLUMNS[key]}\n({title}, {group['steps']} steps)", fontsize=8)
            axis.tick_params(labelsize=7.5)
            axis.locator_params(axis="x", nbins=4)
        for axis in row[len(shown) :]:
            axis.set_visible(False)
    return figures.png(figure)


def main() -> None:
    """Run what is missing, then collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=tuple(STEPS), default=list(STEPS), help="groups to run")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if "SBMINI_DATA" not in os.environ:
        sys.exit("SBMINI_DATA must name the data folder")
    os.environ.update(OMP_NUM_THREADS=str(options.threads), TOKENIZERS_PARALLELISM="false")
    from sbert_mini.recipes.settings import computing_threads

    FOLDER.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        for name, arm in ARMS.items():
            file = FOLDER / file_name(name, seed)
            if arm.group not in options.only or file.is_file():
                continue
            begun = time.perf_counter()
            with computing_threads(options.threads):
                dev_figures = arm.run(seed, STEPS[arm.group])
            spent = round(time.perf_counter() - begun, 1)
            run = {
                "seed": seed,
                "steps": STEPS[arm.group],
                "precision": PRECISION,
                "figures": dev_figures,
                "seconds": spent,
            }
            file.write_text(json.dumps({**run, "machine": machine(options.threads)}) + "\n", "utf-8")
            print(name, json.dumps(run), file=sys.stderr)
    groups = collected(FOLDER)
    if not groups:
        sys.exit(f"{FOLDER} holds no run yet")
    runs = [run for group in groups.values() for arm in group["arms"].values() for run in arm["runs"]]
    cards = [run.pop("machine") for run in runs]
    commits = sorted({card["commit"] for card in cards})
    command = f"python -m benchmarks.ablations --threads {cards[-1]['threads']}"
    result = {"command": command, "machine": cards[-1], "commits": commits, "note": START_NOTE, "groups": groups}
    (RESULTS / "ablations.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (RESULTS / "ablations.png").write_bytes(picture(groups))


if __name__ == "__main__":
    main()
