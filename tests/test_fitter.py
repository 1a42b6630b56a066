"""The fitter whole: one step against plain torch, resuming to the same bytes, what it saves, and the commands around it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_error, run_here
from test_training import algorithm_1

import sbert_mini
from sbert_mini.encoder.module import load
from sbert_mini.errors import UsageError
from sbert_mini.recipes.fit import fit
from sbert_mini.recipes.plan import prepare
from sbert_mini.recipes.reader import read_recipe
from sbert_mini.recipes.settings import computing_threads
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.heads import Head
from sbert_mini.training.losses import HardNegativeMargin
from sbert_mini.training.objective import Objective
from sbert_mini.training.surgery import projection_orders
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.telemetry import Telemetry
from sbert_mini.training.trainer import MultiTaskTrainer

SBMINI = str(Path(sys.executable).with_name("sbmini"))
WORDS = ["the", "cat", "dog", "runs", "sleeps", "red", "blue", "house", "tree", "bread", "dough", "rises"]
RNG = np.random.default_rng(11)


def sentences(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(count)]


def tasks(count=40, dev=12, **margin):
    single = Examples(tuple((s,) for s in sentences(count, 1)), tuple(str(i % 3) for i in range(count)))
    pairs = tuple(zip(sentences(count, 2), sentences(count, 3), strict=True))
    more = tuple(zip(sentences(dev, 4), sentences(dev, 5), strict=True))
    grades, dev_grades = (tuple(float(i % 6) for i in range(n)) for n in (count, dev))
    return [
        Task(
            TaskConfig("mood", "single", "cross-entropy", head_dropout=0.0),
            single,
            Examples(tuple((s,) for s in sentences(dev, 6)), tuple(str(i % 3) for i in range(dev))),
        ),
        Task(
            TaskConfig("same", "pair", "cross-entropy", head_dropout=0.0),
            Examples(pairs, tuple(str(i % 2) for i in range(count))),
        ),
        Task(
            TaskConfig("sts", "siamese", "cosine-embedding", high=5.0),
            Examples(pairs, grades),
            Examples(more, dev_grades),
            HardNegativeMargin(**margin) if margin else None,
        ),
    ]


def arguments(folder, **options):
    from sentence_transformers import SentenceTransformerTrainingArguments

    settings = {
        "output_dir": str(folder), "max_steps": 6, "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 3, **options,
    }  # fmt: skip
    return SentenceTransformerTrainingArguments(**settings)


def model_of(make_model, *, dropout=0.0, seed=2):
    path = make_model(seed=seed, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return load(path, device="cpu")


def weights_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# --- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("optimizer", ["adamw", "torch-adamw"])
def test_a_step_takes_algorithm_1_on_plainly_computed_gradients(make_model, tmp_path, accumulate, optimizer):
    from transformers import TrainerCallback

    class Grads(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **options):
            for module, into in ((model, encoder_found), *((o, head_found) for o in trainer.objectives.values())):
                for name, p in module.named_parameters():
                    if p.grad is not None:
                        key = name if module is model else f"{module.config.name}.{name}"
                        into[key] = (p.grad.to_dense() if p.grad.is_sparse else p.grad).clone()

    encoder_found, head_found = {}, {}
    model, reference = model_of(make_model), model_of(make_model)
    given = tasks()
    args = arguments(tmp_path, max_steps=1, gradient_accumulation_steps=accumulate, max_grad_norm=0)
    config = FitterConfig(batch_size=12, optimizer=optimizer)
    torch.manual_seed(0)
    trainer = MultiTaskTrainer(model, args, given, config, callbacks=[Grads()])
    heads = {n: {k: v.clone() for k, v in o.state_dict().items()} for n, o in trainer.objectives.items()}
    trainer.train()

    # The same again by hand: the same draws, a forward pass a column, autograd.grad, projection of vectors.
    other = MultiTaskTrainer(reference, args, given, config)
    for name, state in heads.items():
        other.objectives[name].load_state_dict(state)
    shared = dict(reference.named_parameters())
    head_parameters = {f"{n}.{k}": p for n, o in other.objectives.items() for k, p in o.named_parameters()}
    loader = other.get_train_dataloader()
    batches = list(loader.batch_sampler)[:accumulate]
    rows, head_gradients = [], {k: torch.zeros_like(p) for k, p in head_parameters.items()}
    for number, task in enumerate(given):
        loss = 0.0
        for places in batches:
            chosen = [i for t, i in places if t == number]
            texts = [task.train.texts[i] for i in chosen]
            inputs = [texts] if task.config.structure == "pair" else [list(c) for c in zip(*texts, strict=True)]
            vectors = [reference(reference[0].preprocess(column))["sentence_embedding"] for column in inputs]
            targets = task.targets(Examples(tuple(texts), tuple(task.train.labels[i] for i in chosen)))
            if task.config.loss == "cross-entropy":
                place = {label: n for n, label in enumerate(task.labels)}
                targets = torch.tensor([place[task.train.labels[i]] for i in chosen])
            loss = loss + other.objectives[task.config.name].eval()(vectors, targets) / accumulate
        own = list(other.objectives[task.config.name].named_parameters())
        found = torch.autograd.grad(loss, [*shared.values(), *(p for _, p in own)], allow_unused=True)
        rows.append(np.concatenate([(g if g is not None else torch.zeros_like(p)).flatten().numpy()
                                    for g, p in zip(found, shared.values(), strict=False)]))  # fmt: skip
        for (name, _), gradient in zip(own, found[len(shared) :], strict=True):
            head_gradients[f"{task.config.name}.{name}"] += gradient
    step = algorithm_1([r.astype(np.float64) for r in rows], projection_orders(3, args.seed, 0))
    assert min(r @ q for r in rows for q in rows) < 0, "the test needs a conflict"
    parts = torch.from_numpy(step).float().split([p.numel() for p in shared.values()])
    for (name, parameter), part in zip(shared.items(), parts, strict=True):
        found = encoder_found.get(name, torch.zeros_like(parameter))
        torch.testing.assert_close(found, part.view(parameter.shape), rtol=1e-4, atol=1e-5, msg=name)
    assert set(head_found) == set(head_gradients) != set()
    for name, gradient in head_gradients.items():
        torch.testing.assert_close(head_found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_clipping_counts_encoder_and_heads_together(make_model, tmp_path):
    model = model_of(make_model)
    trainer = MultiTaskTrainer(model, arguments(tmp_path, max_grad_norm=0.01), tasks(), FitterConfig(batch_size=12))
    trainer.get_train_dataloader()
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    trainer.accelerator.gradient_state._set_sync_gradients(True)
    trainer.training_step(model, next(iter(trainer.get_train_dataloader())))
    parameters = [p for m in (model, *trainer.objectives.values()) for p in m.parameters() if p.grad is not None]
    assert any(p.grad.is_sparse for p in parameters)

    def norm():
        return (
            torch.cat([(p.grad.to_dense() if p.grad.is_sparse else p.grad).flatten() for p in parameters]).norm().item()
        )

    before = norm()
    assert trainer.clip_gradients() == pytest.approx(before, rel=1e-5)
    assert norm() == pytest.approx(0.01, rel=1e-4)


def test_cached_ranking_gives_the_gradients_of_the_plain_one(make_model, tmp_path):
    pairs = tuple(
        (f"{a} {WORDS[i % 12]}", b) for i, (a, b) in enumerate(zip(sentences(30, 7), sentences(30, 8), strict=True))
    )
    grams = []
    for loss in ("multiple-negatives-ranking", "cached-multiple-negatives-ranking"):
        given = [tasks()[0], Task(TaskConfig("rank", "siamese", loss, mini_batch_size=3), Examples(pairs))]
        model = model_of(make_model)
        torch.manual_seed(0)
        trainer = MultiTaskTrainer(model, arguments(tmp_path), given, FitterConfig(batch_size=16))
        loader = trainer.get_train_dataloader()
        trainer.create_optimizer()
        trainer.current_gradient_accumulation_steps = 1
        trainer.accelerator.gradient_state._set_sync_gradients(False)
        trainer.training_step(model, next(iter(loader)))
        grams.append(trainer._buffer.gram())
    torch.testing.assert_close(grams[0], grams[1], rtol=1e-4, atol=1e-6)


def test_bf16_rows_point_where_fp32s_do(make_model, tmp_path):
    rows = []
    for bf16 in (False, True):
        model = model_of(make_model)
        torch.manual_seed(0)
        config = FitterConfig(batch_size=12, optimizer="torch-adamw")
        trainer = MultiTaskTrainer(model, arguments(tmp_path, bf16=bf16, max_steps=1), tasks(), config)
        captured = {}
        trainer.surgeon.rule = lambda gram: (captured.update(flat=trainer._buffer._flat.clone()), torch.ones(3))[1]  # noqa: B023
        trainer.train()
        rows.append(captured["flat"])
    cosine = torch.nn.functional.cosine_similarity(rows[0], rows[1], dim=1)
    assert rows[1].dtype == torch.float32
    assert cosine.min() > 0.99


def test_the_log_tells_of_tasks_gradients_and_margins(make_model, tmp_path):
    model = model_of(make_model)
    args = arguments(tmp_path, max_steps=4, logging_steps=2)
    trainer = MultiTaskTrainer(model, args, tasks(value=0.5), FitterConfig(batch_size=12))
    trainer.train()
    entry = trainer.state.log_history[0]
    for key in ("loss", "grad_norm", "loss_mood", "loss_same", "loss_sts", "cosine_mood/sts", "conflict_same/sts",
                "grad_norm_same", "weight_mood", "examples_sts", "margin_sts"):  # fmt: skip
        assert np.isfinite(entry[key]), key
    assert entry["loss"] == pytest.approx(sum(entry[f"loss_{n}"] for n in ("mood", "same", "sts")), rel=1e-5)
    assert -1 <= entry["cosine_mood/sts"] <= 1
    assert entry["margin_sts"] != trainer.state.log_history[1]["margin_sts"]


def test_the_time_in_the_log_is_that_of_steps_without_evaluations(make_model, tmp_path):
    """By a clock that each step moves by 1 and each evaluation by 100."""
    from transformers import TrainerCallback

    now = [0.0]

    class Step(TrainerCallback):
        def on_step_begin(self, args, state, control, **options):
            now[0] += 1

    args = arguments(tmp_path, max_steps=6, logging_steps=2, eval_strategy="steps", eval_steps=1)
    trainer = MultiTaskTrainer(model_of(make_model), args, tasks(), FitterConfig(batch_size=12), callbacks=[Step()])
    trainer.telemetry = Telemetry([task.config.name for task in trainer.tasks], clock=lambda: now[0])
    measure = trainer.evaluator

    def slowly(model):
        now[0] += 100
        return measure(model)

    trainer.evaluator = slowly
    trainer.train()
    assert now[0] == 6 * 101
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["seconds"] for entry in logged] == [2.0, 2.0, 2.0]
    assert [entry["examples_per_second"] for entry in logged] == [12.0, 12.0, 12.0]


def test_figures_are_those_of_scikit_learn_and_scipy(make_model, tmp_path):
    from scipy.stats import pearsonr
    from sklearn.metrics import f1_score

    model, given = model_of(make_model), tasks()
    trainer = MultiTaskTrainer(model, arguments(tmp_path), given, FitterConfig(batch_size=12))
    found = trainer.evaluate()
    mood, _, sts = given
    vectors = torch.from_numpy(model.encode([row[0] for row in mood.dev.texts]))
    predicted = [str(i) for i in trainer.objectives["mood"].head.eval()(vectors).argmax(-1).tolist()]
    assert found["eval_mood_accuracy"] == np.mean([p == q for p, q in zip(predicted, mood.dev.labels, strict=True)])
    assert found["eval_mood_macro_f1"] == pytest.approx(
        f1_score(mood.dev.labels, predicted, average="macro", zero_division=0)
    )
    u, v = (torch.from_numpy(model.encode(list(c))) for c in zip(*sts.dev.texts, strict=True))
    pearson = pearsonr(torch.cosine_similarity(u, v).numpy(), sts.dev.labels).statistic
    assert found["eval_sts_pearson"] == pytest.approx(pearson, abs=1e-5)
    assert found["eval_mean"] == pytest.approx((found["eval_mood_accuracy"] + (pearson + 1) / 2) / 2, abs=1e-5)


def test_a_dynamic_schedule_moves_with_the_figures(make_model, tmp_path):
    model = model_of(make_model)
    args = arguments(tmp_path, max_steps=6, eval_strategy="steps", eval_steps=2)
    trainer = MultiTaskTrainer(model, args, tasks(), FitterConfig(batch_size=30, schedule="dynamic", floor=2))
    trainer.train()
    history = trainer.schedule.history
    assert history[0].sizes == (10, 10, 10)
    assert len(history) > 1
    assert all(sum(change.sizes) == 30 and min(change.sizes) >= 2 for change in history)
    last = [e for e in trainer.state.log_history if "loss" in e][-1]
    assert last["examples_mood"] == trainer.schedule.sizes_at(5)[0]


def test_a_frozen_encoder_stays_and_its_heads_learn(make_model, tmp_path):
    model = model_of(make_model, dropout=0.1)
    before = weights_of(model)
    texts = sentences(60, 1)
    labels = tuple("cat" if "cat" in text else "none" for text in texts)
    given = [Task(TaskConfig("mood", "single", "cross-entropy"), Examples(tuple((t,) for t in texts), labels))]
    args = arguments(tmp_path, max_steps=60, learning_rate=1e-2)
    trainer = MultiTaskTrainer(model, args, given, FitterConfig(batch_size=20, encoder="frozen"))
    head = {k: v.clone() for k, v in trainer.objectives["mood"].state_dict().items()}
    trainer.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not torch.equal(head["head.output.weight"], trainer.objectives["mood"].state_dict()["head.output.weight"])
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_a_loss_that_is_no_number_stops_the_run_and_long_texts_are_told(make_model, tmp_path, caplog):
    from sbert_mini.errors import TrainingError

    long = Examples(((" ".join(WORDS * 9),), ("the cat",)), ("a", "b"))
    trainer = MultiTaskTrainer(
        model_of(make_model),
        arguments(tmp_path, learning_rate=1e30, max_grad_norm=0, max_steps=50),
        [Task(TaskConfig("mood", "single", "cross-entropy"), long)],
        FitterConfig(batch_size=4),
    )
    with pytest.raises(
        TrainingError, match=r"the loss of the task 'mood' is (nan|inf) at step \d+: lower the learning rate"
    ):
        trainer.train()
    assert "task mood: 1 training texts are longer than 31 tokens, and are cut" in caplog.text


def test_what_the_fitter_refuses(make_model, tmp_path):
    model, args = model_of(make_model), arguments(tmp_path)
    one = tasks()[0]
    with pytest.raises(UsageError, match="at least one task"):
        MultiTaskTrainer(model, args, [])
    with pytest.raises(UsageError, match="two tasks are called 'mood'"):
        MultiTaskTrainer(model, args, [one, one])
    with pytest.raises(UsageError, match="encoder must be one of trained, frozen; found 'melted'"):
        FitterConfig(encoder="melted")
    with pytest.raises(UsageError, match="12 examples cannot hold floor = 5 of each of 3 tasks"):
        MultiTaskTrainer(model, args, tasks(), FitterConfig(batch_size=12, floor=5))
    ranking = Task(TaskConfig("r", "siamese", "cosent"), Examples((("a", "b"),), (1.0,)))
    with pytest.raises(UsageError, match="the encoder is frozen, and the loss cosent has no head to train"):
        MultiTaskTrainer(model, args, [ranking], FitterConfig(batch_size=4, encoder="frozen"))


def test_accumulated_and_resumed_a_run_goes_on_exactly(make_model, tmp_path):
    """Epochs, two batches a step, a margin that moves by epochs, dropout: stopped at a step and gone on with."""

    def trainer(folder, **options):
        settings = {
            "gradient_accumulation_steps": 2,
            "save_strategy": "steps",
            "save_steps": 3,
            "max_steps": 11,
            **options,
        }
        torch.manual_seed(0)
        config = FitterConfig(batch_size=12, schedule="annealed", surgery="gradvac", steps_per_epoch=5)
        given = tasks(value=0.5, every="epoch")
        return MultiTaskTrainer(model_of(make_model, dropout=0.1), arguments(folder, **settings), given, config)

    whole = trainer(tmp_path / "whole")
    whole.train()
    first = trainer(tmp_path / "part")
    first.train()
    again = trainer(tmp_path / "again")
    again.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-6"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    for name, objective in whole.objectives.items():
        for key, tensor in objective.state_dict().items():
            assert torch.equal(tensor, again.objectives[name].state_dict()[key]), (name, key)
    assert whole.objectives["sts"].margin.value == again.objectives["sts"].margin.value
    assert whole.schedule.history == again.schedule.history
    assert torch.equal(whole.surgeon._vaccine.targets, again.surgeon._vaccine.targets)
    files = {p.name for p in (tmp_path / "part" / "checkpoint-6").rglob("*") if p.is_file()}
    assert not {name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))}


# --- the command ------------------------------------------------------------------------------------------------------

RECIPE = """
[model]
start = "start"
output = "trained"
dropout = 0.1

[train]
steps = 60
batch_size = 24
schedule = "dynamic"
floor = 2
log_every = 3

[optimizer]
learning_rate = 1e-3

[evaluation]
every = 7

[[task]]
name = "mood"
structure = "single"
loss = "cross-entropy"
train = "mood.csv"
dev = "mood-dev.csv"
drop_overlap = true

[[task]]
name = "same"
structure = "pair"
loss = "cross-entropy"
train = "same.jsonl"
dev = "same.jsonl"
dev_limit = 20
hidden = 9

[[task]]
name = "sts"
structure = "siamese"
loss = "cosine-embedding"
train = "sts.tsv"
dev = "sts.tsv"
label = "grade"
low = 0
high = 5

[task.margin]
rule = "hard-negatives"
"""


@pytest.fixture
def workshop(tmp_path, make_model):
    """A folder with a recipe, its data and a small starting model."""
    make_model(seed=9).rename(tmp_path / "start")
    (tmp_path / "start" / "README.md").write_text("---\nlicense: mit\ndatasets:\n- snli\n---\n# start\n")
    rows = [f'"{s}",{"good" if "cat" in s else "bad"}' for s in sentences(90, 1)]
    (tmp_path / "mood.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "mood-dev.csv").write_text("text,label\n" + "\n".join(rows[:10]) + "\n")
    pairs = list(zip(sentences(80, 2), sentences(80, 3), strict=True))
    lines = [json.dumps({"sentence1": a, "sentence2": b, "label": i % 2}) for i, (a, b) in enumerate(pairs)]
    (tmp_path / "same.jsonl").write_text("\n".join(lines) + "\n")
    lines = [f"{a}\t{b}\t{i % 6}" for i, (a, b) in enumerate(pairs)]
    (tmp_path / "sts.tsv").write_text("sentence1\tsentence2\tgrade\n" + "\n".join(lines) + "\n")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def train(folder, *arguments):
    return run_here(folder, "train", "recipe.toml", "--threads", "1", *arguments)


@contextlib.contextmanager
def started(folder, *arguments, stderr=subprocess.DEVNULL):
    """Start a training in a process of its own, which is killed in the end whatever happens."""
    whole = [SBMINI, "train", "recipe.toml", "--threads", "1", *arguments]
    with subprocess.Popen(whole, cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process, condition):
    """Wait until something holds; fail where the process ends before."""
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, "the run was over before it could be stopped"
        assert time.monotonic() < deadline, "the run hangs"
        time.sleep(0.002)


def fitted(folder, output=None, **options):
    """Train by the function that the command calls, in this process: starting another takes longer than training."""
    plan = prepare(read_recipe(folder / "recipe.toml"), output=folder / output if output else None)
    with computing_threads(1):
        return fit(plan, offline=True, **options)


def content(folder):
    """The bytes of every file of a model that training makes."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "onnx" not in file.parts
    }


def test_killed_and_resumed_a_run_ends_in_the_same_bytes(workshop):
    whole = train(workshop, "-o", "whole", "--json")
    assert whole.returncode == 0, whole.stderr
    with started(workshop, "-o", "killed") as process:
        wait_for(
            process,
            lambda: (
                list((workshop / "killed.run").glob("checkpoint-[0-9]*"))
                and (workshop / "killed.run" / "log.jsonl").read_text().count("\n") >= 9
            ),
        )
        process.send_signal(signal.SIGKILL)
    assert not (workshop / "killed").exists()
    refused = train(workshop, "-o", "killed")
    assert refused.returncode == 2
    assert "go on with it by --resume" in refused.stderr
    resumed = train(workshop, "-o", "killed", "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    found, expected = (json.loads(run.stdout.splitlines()[-1]) for run in (resumed, whole))
    assert 0 < found["resumed_from"] < 60
    assert expected["resumed_from"] == 0
    assert found["figures"] == expected["figures"]
    first, second = content(workshop / "whole"), content(workshop / "killed")
    assert set(first) == set(second)
    for name in first:
        assert first[name].replace(b"whole", b"killed") == second[name], name
    assert not list((workshop / "killed.run").glob("checkpoint-*"))


def test_killed_after_its_last_checkpoint_a_run_is_finished_without_another_step(workshop):
    recipe = RECIPE.replace("[optimizer]", '[optimizer]\ndecay = "constant"').replace("steps = 60", "steps = 14")
    (workshop / "recipe.toml").write_text(recipe)
    whole = fitted(workshop, "whole")
    for attempt in range(9):
        shutil.rmtree(workshop / "cut.run", ignore_errors=True)
        shutil.rmtree(workshop / "cut", ignore_errors=True)
        with started(workshop, "-o", "cut") as process:
            wait_for(process, (workshop / "cut.run" / "checkpoint-14").exists)
            process.kill()
        if not (workshop / "cut").exists():
            break
        assert attempt < 8, "the run was always over before it could be killed"
    assert fitted(workshop, "cut", resume=True).figures == whole.figures
    for name, data in content(workshop / "whole").items():
        assert data.replace(b"whole", b"cut") == content(workshop / "cut")[name], name


def test_changed_data_are_not_gone_on_with(workshop):
    run = workshop / "trained.run"
    run.mkdir()
    (run / "checkpoint-7").mkdir()
    (run / "checkpoint-7" / "fitter.json").write_text("{}")
    (run / "run.json").write_text(
        json.dumps({"recipe": RECIPE, "seed": 0, "data": "other rows", "start": "other weights"})
    )
    done = train(workshop, "--resume")
    assert done.returncode == 2
    assert "another starting model" in done.stderr
    assert "other data: rows or labels" in done.stderr


@pytest.mark.parametrize(
    "name",
    ["paraphrase", "sentiment", "search", "multitask", "cs224n-paper", "simcse-unsupervised", "simcse-supervised"],
)
def test_every_recipe_that_ships_trains(name, tmp_path, make_model, monkeypatch):
    """On small files of the right shape, from a small model, for two steps."""
    import gzip
    import re as regex

    make_model(seed=9).rename(tmp_path / "start")
    shipped = Path(sbert_mini.__file__).parent / "examples" / "recipes" / f"{name}.toml"
    recipe = read_recipe(shipped)
    pairs = list(zip(sentences(60, 2), sentences(60, 3), strict=True))
    for part in recipe.tasks:
        texts, top = len(part.text_columns()), int(part.config.high) if part.config.loss != "cross-entropy" else 1
        labelled = part.config.loss != "multiple-negatives-ranking"
        header = [*part.text_columns(), *([part.label or "label"] if labelled else [])]
        for offset, file in [(0, f) for f in part.files("train")] + [(30, f) for f in part.files("dev")]:
            path = tmp_path / "data" / file if recipe.data.folder else tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [
                [*[*pairs[i + offset], "a third text"][:texts], *([str(i % (top + 1))] if labelled else [])]
                for i in range(30)
            ]
            tab = "," if path.suffix == ".csv" and not recipe.data.folder else "\t"
            text = "".join(tab.join(row) + "\n" for row in [header, *rows]).encode()
            path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    if recipe.data.evaluation:
        (tmp_path / "data" / "sts13.tsv").write_text(
            "sentence1\tsentence2\tscore\n" + "\t".join([*pairs[0], "1"]) + "\n"
        )
    text = shipped.read_text("utf-8").replace(f'start = "{recipe.model.start}"', 'start = "start"')
    text = regex.sub(r"^(epochs|steps) = .*$", "steps = 2", text, flags=regex.MULTILINE)
    text = regex.sub(r"^max_seq_length = .*$", "max_seq_length = 32", text, flags=regex.MULTILINE)
    text = regex.sub(r"^every = .*$", "every = 2", text, flags=regex.MULTILINE)
    (tmp_path / "recipe.toml").write_text(text)
    monkeypatch.setenv("SBMINI_DATA", str(tmp_path / "data") if recipe.data.folder else str(tmp_path))
    assert fitted(tmp_path).steps in (1, 2)  # of the better weights
    if "cs224n" in name:
        from sbert_mini.evaluation.sets import trained_on

        assert "stsb_test" in trained_on(tmp_path / recipe.model.output)


def test_a_run_of_another_recipe_is_not_gone_on_with(workshop):
    (workshop / "recipe.toml").write_text(RECIPE.replace("steps = 60", "steps = 600"))
    with started(workshop, stderr=subprocess.PIPE) as process:
        wait_for(process, (workshop / "trained.run" / "checkpoint-7").exists)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
    assert process.returncode == 130
    assert "--resume goes on from it" in said
    (workshop / "recipe.toml").write_text(RECIPE)
    done = train(workshop, "--resume")
    assert done.returncode == 2
    assert "another recipe (line " in done.stderr
    assert "was `steps = 600`, and is `steps = 60`" in done.stderr


def test_what_is_trained_is_a_model_with_heads_a_card_and_nothing_of_ours_in_its_layout(workshop):
    done = train(workshop, "--seed", "5")
    assert done.returncode == 0, done.stderr
    assert "mean" in done.stdout
    assert "the weights of step " in done.stderr
    model = workshop / "trained"
    assert {p.name for p in (model / "heads").iterdir()} == {"mood", "same", "sts"}
    card = (model / "README.md").read_text("utf-8")
    assert card.startswith("---\n")
    for part in ("license: mit", "- mood", "- snli", "base_model: start", "| mood | single | cross-entropy | mood | 80 |",
                 "10 (in the dev set)", "steps = 60", "mood accuracy", "not free of leakage"):  # fmt: skip
        assert part in card, part
    script = (
        "import sys; from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(sys.argv[1], local_files_only=True)\n"
        "assert not any(name.startswith('sbert_mini') for name in sys.modules)\n"
        "print(model.encode(['the cat sleeps'])[0].tolist())"
    )
    plain = subprocess.run(
        [sys.executable, "-c", script, str(model)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert plain.returncode == 0, plain.stderr
    vector = np.array(json.loads(plain.stdout))
    vector /= np.linalg.norm(vector)
    np.testing.assert_allclose(sbert_mini.Embedder(model, graph="fp32").encode("the cat sleeps"), vector, atol=1e-5)
    suffixes = {p.suffix for p in model.rglob("*") if p.is_file() and "onnx" not in p.parts}
    assert suffixes <= {".json", ".safetensors", ".md"}
    again = train(workshop)
    assert again.returncode == 2
    assert "exists already" in again.stderr

    def predict(*arguments):
        return run_here(workshop, "predict", "-m", "trained", *arguments)

    done = predict("-t", "mood", "--graph", "fp32", "the cat sleeps", "a dog")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    head = Head.load(model, "mood")
    with torch.no_grad():
        expected = head(torch.from_numpy(load(model).encode(["the cat sleeps", "a dog"]))).softmax(-1)
    for line, row in zip(lines, expected.tolist(), strict=True):
        assert list(line["probabilities"]) == ["bad", "good"]
        assert list(line["probabilities"].values()) == pytest.approx(row, abs=1e-4)
    done = predict("-t", "same", "the cat", "a dog")
    assert json.loads(done.stdout)["texts"] == ["the cat", "a dog"]
    done = predict("-t", "sts", "-i", "sts.tsv")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 80
    assert all(0 <= json.loads(line)["score"] <= 5.0001 for line in done.stdout.splitlines())
    piped = subprocess.run(
        [SBMINI, "predict", "-m", "trained", "-t", "mood"], cwd=workshop, capture_output=True, input=b"the cat\na dog\n"
    )
    assert len(piped.stdout.splitlines()) == 2
    for arguments, code, said in (
        (("-t", "same", "one"), 2, "two texts are needed; found 1"),
        (("-t", "none", "one"), 1, "it has: mood, same, sts"),
        (("one",), 2, "has several heads, name one of mood, same, sts"),
        (("-t", "sts", "-i", "sts.tsv", "--columns", "sentence1"), 2, "--columns must name 2 columns"),
        (("-t", "sts", "-i", "mood.csv"), 1, "sentence1"),
        (("-t", "mood", ""), 2, "one of the texts is empty"),
    ):
        one_error(predict(*arguments), code, said)


def test_torch_is_not_loaded_by_predict(workshop):
    (workshop / "recipe.toml").write_text(RECIPE.replace("steps = 60", "steps = 2").replace("every = 7", "every = 2"))
    fitted(workshop)
    script = (
        "import sys; from sbert_mini.runtime.predictor import Predictor\n"
        "print(Predictor(sys.argv[1], 'mood').predict(['the cat'])[0].label)\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'scipy', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    sbert_mini.Embedder(workshop / "trained")
    done = subprocess.run([sys.executable, "-c", script, str(workshop / "trained")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dry_run_and_mistakes(workshop):
    done = train(workshop, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["steps"] == 60
    assert [t["name"] for t in found["tasks"]] == ["mood", "same", "sts"]
    assert found["tasks"][0]["dropped"] == {"in the dev set": 10}
    assert found["memory_bytes"] > 0
    assert "labels: bad" in done.stderr
    assert not (workshop / "trained.run").exists()
    assert "60 steps of 24 examples, surgery pcgrad" in train(workshop, "--dry-run").stdout
    for old, new, code, said in (
        ("steps = 60", "stepz = 60", 2, "recipe.toml, line 8: there is no key train.stepz (did you mean steps?)"),
        ("mood.csv", "gone.csv", 1, "gone.csv cannot be opened"),
        ('"grade"', '"grades"', 1, "there is no column 'grades'"),
        ('start = "start"', 'start = "nowhere"', 1, "there is no model 'nowhere'"),
        ("high = 5", "high = 4", 1, "the score 5.0 is outside [0.0, 4.0]"),
        ("[model]", '[data]\nfolder = "$SBMINI_DATA_X"\n[model]', 2, "SBMINI_DATA_X, which is not set"),
    ):
        (workshop / "recipe.toml").write_text(RECIPE.replace(old, new, 1))
        done = train(workshop, "--dry-run", "-q")
        one_error(done, code, said)
    (workshop / "recipe.toml").write_text(RECIPE.replace("steps = 60", 'steps = 60\nreport_to = ["nowhere"]'))
    one_error(train(workshop, "-q"), 2, "sentence-transformers refuses these settings", "nowhere")


def test_rows_of_evaluation_sets_are_counted_and_dropped(workshop):
    held = (workshop / "sts.tsv").read_text().splitlines()
    sets = workshop / "sets"
    sets.mkdir()
    rows = [line.split("\t") for line in held[1:6]]
    lines = "".join(f"{b}\t{a.upper()}.\t{s}\n" for a, b, s in rows)
    (sets / "sts13.tsv").write_text("sentence1\tsentence2\tscore\n" + lines)
    recipe = RECIPE.replace("steps = 60", "steps = 2").replace("every = 7", "every = 2")
    (workshop / "recipe.toml").write_text('[data]\nevaluation = "sets"\n' + recipe)
    done = train(workshop, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["overlap"] == {"sts13": {"same": 5, "sts": 5}}
    from sbert_mini.evaluation.sets import trained_on

    assert set(trained_on(workshop / "trained")) == {"sts13"}
    scored = run_here(workshop, "bench", "sts", "-m", "trained", "--data", "sets", "--json")
    (model,) = json.loads(scored.stdout)["models"]
    assert model["mean_of"] == []
    assert "10 pairs" in model["sets"][0]["trained_on"]
    (workshop / "recipe.toml").write_text('[data]\nevaluation = "sets"\ndrop_evaluation = true\n' + recipe)
    done = train(workshop, "--dry-run", "--json")
    assert [t["dropped"].get("in an STS set") for t in json.loads(done.stdout)["tasks"]] == [None, 5, 5]


def test_early_stopping_and_tensorboard(workshop):
    recipe = RECIPE.replace("steps = 60", 'steps = 600\nreport_to = ["tensorboard"]').replace(
        "every = 7", "every = 2\npatience = 2"
    )
    (workshop / "recipe.toml").write_text(
        recipe.replace("learning_rate = 1e-3", "learning_rate = 0.0\nhead_learning_rate = 0.0")
    )
    done = train(workshop, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2  # the first evaluation is never bettered
    log = [json.loads(line) for line in (workshop / "trained.run" / "log.jsonl").read_text().splitlines()]
    assert max(entry["step"] for entry in log) == 6
    assert list((workshop / "trained.run").rglob("events.out.tfevents.*"))


def test_recipes_that_ship_are_listed_and_shown(sbmini):
    done = sbmini("recipes", "list")
    names = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert {"paraphrase", "sentiment", "search", "multitask", "cs224n-paper", "simcse-supervised"} <= set(names)
    for name in names:
        assert "[[task]]" in sbmini("recipes", "show", name).stdout
    one_error(sbmini("recipes", "show", "none"), 2, "there is no recipe 'none'")


def test_label_shares_give_the_posterior_of_the_other_shares(make_model):
    """Labels drawn 3 to 1, regardless of the text: trained for equal shares, the outputs become equal."""
    rows = tuple((f"w{i % 7} w{i % 5}",) for i in range(40))
    labels = tuple("b" if i % 4 else "a" for i in range(40))
    model = load(make_model(seed=1), device="cpu")
    odds = {}
    for shares in ((), (0.5, 0.5), (0.9, 0.1)):
        task = Task(
            TaskConfig("t", "single", "cross-entropy", label_shares=shares, head_dropout=0.0), Examples(rows, labels)
        )
        objective = Objective(task, model)
        vectors = torch.zeros(40, model.get_embedding_dimension())  # the head's bias is all that can be learnt
        optimizer = torch.optim.LBFGS(objective.parameters(), max_iter=50)

        def closure(objective=objective, optimizer=optimizer, vectors=vectors, task=task):
            optimizer.zero_grad()
            loss = objective([vectors], task.targets(task.train))
            loss.backward()
            return loss

        optimizer.step(closure)
        odds[shares] = objective.outputs([vectors])[0].softmax(dim=0).tolist()
    assert odds[()] == pytest.approx([0.25, 0.75], abs=1e-3)
    assert odds[0.5, 0.5] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert odds[0.9, 0.1] == pytest.approx([0.9, 0.1], abs=1e-3)


def test_label_shares_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="label_shares is for the loss cross-entropy"):
        TaskConfig("t", "siamese", "cosent", label_shares=(0.5, 0.5))
    with pytest.raises(UsageError, match="1 together"):
        TaskConfig("t", "single", "cross-entropy", label_shares=(0.5, 0.6))
    rows = Examples((("x",), ("y",)), ("a", "b"))
    with pytest.raises(UsageError, match="3 shares for 2 labels"):
        Task(TaskConfig("t", "single", "cross-entropy", label_shares=(0.2, 0.2, 0.6)), rows)


def test_columns_of_other_lengths_go_through_the_encoder_apart_to_the_same_loss(make_model, tmp_path):
    """Titles and articles: a column a pass is the same loss, of fewer tokens."""
    pairs = tuple((title, " ".join(sentences(4, seed=i))) for i, title in enumerate(sentences(8, 1)))
    task = Task(TaskConfig("titles", "siamese", "multiple-negatives-ranking"), Examples(pairs))
    losses, tokens = [], []
    for least in (0.8, 0.0):
        model = load(make_model(seed=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), device="cpu")
        trainer = MultiTaskTrainer(model, arguments(tmp_path, max_steps=1), [task], FitterConfig(batch_size=8))
        loader = trainer.get_train_dataloader()
        loader.collate_fn.like_lengths = least
        inputs = next(iter(loader))
        passes = inputs["tasks"][0]["features"]
        tokens.append([features["input_ids"].numel() for features in passes])
        losses.append(float(trainer.compute_loss(model, inputs).detach()))
    assert [len(held) for held in tokens] == [2, 1]
    assert sum(tokens[0]) < 0.8 * tokens[1][0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
