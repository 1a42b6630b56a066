"""Averages of weights and soups of models."""

import json
from pathlib import Path

import pytest
import torch
from conftest import one_error, run_here, tiny_model
from safetensors.torch import load_file, save_file
from small_tasks import SIZES, arguments, model_of, sentences, tasks, trainer_on

from sbert_mini.encoder.module import load
from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.training.averaging import WeightAverage, soup
from sbert_mini.training.config import AverageConfig, FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_averages_are_the_closed_forms():
    layer = torch.nn.Linear(2, 1, bias=False)
    values = [torch.tensor([[float(i), -2.0 * i]]) for i in range(6)]
    with torch.no_grad():
        layer.weight.copy_(values[0])
    flat, warm = (WeightAverage({"m": layer}, "ema", 0.9, warm=w) for w in (False, True))
    mean = WeightAverage({"m": layer}, "checkpoints")
    expected, expected_warm = values[0].clone(), values[0].clone()
    for t, value in enumerate(values[1:], start=1):
        with torch.no_grad():
            layer.weight.copy_(value)
        for average in (flat, warm, mean):
            average.update()
        expected = 0.9 * expected + 0.1 * value
        d = min(0.9, (1 + t) / (10 + t))
        expected_warm = d * expected_warm + (1 - d) * value
    torch.testing.assert_close(flat.weights["m.weight"], expected)
    torch.testing.assert_close(warm.weights["m.weight"], expected_warm)
    torch.testing.assert_close(mean.weights["m.weight"], torch.stack(values[1:]).mean(0))
    with mean.in_place():
        torch.testing.assert_close(layer.weight.data, torch.stack(values[1:]).mean(0))
    torch.testing.assert_close(layer.weight.data, values[-1])
    for rule, decay in (("soup", 0.5), ("ema", 1.0)):
        with pytest.raises(UsageError):
            WeightAverage({"m": layer}, rule, decay)


def test_an_average_of_other_weights_is_refused(tmp_path):
    average = WeightAverage({"m": torch.nn.Linear(2, 1)})
    average.update()
    average.save(tmp_path / "a.safetensors")
    again = WeightAverage({"m": torch.nn.Linear(2, 1)})
    again.load(tmp_path / "a.safetensors")
    assert again.count == 1
    torch.testing.assert_close(again.weights, average.weights)
    with pytest.raises(CorruptModelError, match="other weights"):
        WeightAverage({"n": torch.nn.Linear(2, 1)}).load(tmp_path / "a.safetensors")
    with pytest.raises(CorruptModelError, match="cannot be read"):
        average.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("kind", ["ema", "checkpoints"])
def test_the_average_is_what_is_measured_and_saved(make_model, tmp_path, kind):
    model = model_of(make_model)
    args = arguments(
        tmp_path / "run", max_steps=6, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        load_best_model_at_end=True, metric_for_best_model="eval_mean", save_total_limit=2,
    )  # fmt: skip
    trainer = MultiTaskTrainer(model, args, tasks(), FitterConfig(batch_size=12, average=AverageConfig(kind, 0.9, 0.3)))
    trainer.train()
    best = trainer.state.best_global_step
    wanted = next(e for e in trainer.state.log_history if e["step"] == best and "eval_mean" in e)
    found = trainer.evaluate()  # with the weights that are in the model now
    assert found["eval_mean"] == pytest.approx(wanted["eval_mean"], abs=1e-6)
    assert found["eval_sts_pearson"] == pytest.approx(wanted["eval_sts_pearson"], abs=1e-6)
    kept = Path(trainer.state.best_model_checkpoint)
    raw = load(kept, device="cpu").state_dict()
    same = all(torch.equal(raw[k], t) for k, t in model.state_dict().items())
    assert not same, "the average must differ from the trained weights"


def test_checkpoints_are_averaged_at_evaluations_only(make_model, tmp_path):
    without_dev = [Task(t.config, t.train) for t in tasks()]
    with pytest.raises(UsageError, match="no task has dev examples"):
        MultiTaskTrainer(
            model_of(make_model), arguments(tmp_path), without_dev, FitterConfig(average=AverageConfig("checkpoints"))
        )


def test_a_soup_is_the_mean_and_of_one_shape(make_model, tmp_path):
    paths = [make_model(seed=seed) for seed in (1, 2, 3)]
    soup(paths, tmp_path / "soup")
    states = [load(p, device="cpu").state_dict() for p in paths]
    for name, tensor in load(tmp_path / "soup", device="cpu").state_dict().items():
        torch.testing.assert_close(tensor, torch.stack([s[name] for s in states]).mean(0))
    soup([paths[0], paths[0]], tmp_path / "same")
    same = load(tmp_path / "same", device="cpu").state_dict()
    (paths[0] / "lora").mkdir()
    save_file({"a": torch.zeros(1)}, paths[0] / "lora" / "adapter_model.safetensors")
    soup(paths, tmp_path / "without-updates")
    assert not (tmp_path / "without-updates" / "lora").exists()
    assert all(torch.equal(t, states[0][n]) for n, t in same.items())
    with pytest.raises(UsageError, match="exists already"):
        soup(paths, tmp_path / "soup")
    with pytest.raises(UsageError, match="at least two"):
        soup(paths[:1], tmp_path / "one")
    with pytest.raises(UsageError, match=r"differ|other names or shapes"):
        soup([paths[0], make_model(seed=1, num_hidden_layers=1)], tmp_path / "other")


def test_the_soup_command(make_model, tmp_path):
    paths = [str(make_model(seed=seed)) for seed in (1, 2)]
    done = run_here(tmp_path, "soup", *paths, "-o", tmp_path / "soup")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "soup") in done.stderr
    assert run_here(tmp_path, "encode", "a cat", "-m", tmp_path / "soup").returncode == 0
    one_error(run_here(tmp_path, "soup", paths[0], "-o", tmp_path / "x"), 2, "at least two models")
    one_error(run_here(tmp_path, "soup", paths[0], tmp_path / "gone", "-o", tmp_path / "x"), 1, "gone")


def with_a_head(first, second):
    (second / "heads" / "mood").mkdir(parents=True)
    save_file({"output.bias": torch.zeros(2)}, second / "heads" / "mood" / "model.safetensors")


def of_another_vocabulary(first, second):
    weights = load_file(second / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    save_file({**weights, name: weights[name][:-1]}, second / "model.safetensors")


def of_another_width(first, second):
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps({**config, "num_attention_heads": 2}))


def with_torn_weights(first, second):
    file = second / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def with_torn_settings(first, second):
    (second / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "kind", "text"),
    [
        (with_a_head, UsageError, "do not hold the same weights: heads/mood/model.safetensors"),
        (of_another_vocabulary, UsageError, "second/model.safetensors holds weights of other names or shapes than"),
        (of_another_width, UsageError, "the models differ in their configuration"),
        (with_torn_weights, CorruptModelError, "second/model.safetensors cannot be read"),
        (with_torn_settings, CorruptModelError, "second/config.json cannot be read"),
    ],
)
def test_models_that_do_not_mix_are_refused(tmp_path, damage, kind, text):
    first, second = tmp_path / "first", tmp_path / "second"
    for path, seed in ((first, 1), (second, 2)):
        path.mkdir()
        tiny_model(path, seed=seed, **SIZES)
    damage(first, second)
    with pytest.raises(kind, match=text):
        soup([first, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fitter_that_has_not_trained_restores_the_average_of_a_checkpoint(tmp_path):
    rows = tuple(zip(sentences(8, 1), sentences(8, 2), strict=True))
    task = Task(TaskConfig("t", "siamese", "cosent"), Examples(rows, tuple(i / 7 for i in range(8))))
    config = FitterConfig(batch_size=8, average=AverageConfig("ema", 0.9))
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trained = trainer_on(tmp_path, [task], config, **options)
    trained.train()  # in the end the average is in the place of the weights
    fresh = trainer_on(tmp_path, [task], config, **options)
    fresh.restore(tmp_path / "run" / "checkpoint-2")
    last = load_file(tmp_path / "run" / "checkpoint-2" / "model.safetensors")
    average = dict(trained.model[0].model.named_parameters())
    for name, weight in fresh.model[0].model.named_parameters():
        assert torch.equal(weight, average[name]), name
    assert any(not torch.equal(weight, last[name]) for name, weight in average.items() if name in last)
