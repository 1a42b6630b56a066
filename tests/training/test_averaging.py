"""Soups that are refused, and an average that a checkpoint holds."""

import json

import pytest
import torch
from conftest import tiny_model
from safetensors.torch import load_file, save_file
from small import SIZES, sentences, trainer_on

from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.training.averaging import soup
from sbert_mini.training.config import AverageConfig, FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task


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
