"""Projected attention layers of a task."""

import math

import numpy as np
import pytest
import torch
from small_tasks import arguments, model_of, sentences, tasks
from torch.nn import functional

from sbert_mini.encoder.adapters import ProjectedAttention
from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_projected_attention_is_the_papers(rng):
    torch.manual_seed(3)
    adapter = ProjectedAttention(8, 2, 6, 3).double()
    with torch.no_grad():
        adapter.up.weight.normal_()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    bias = torch.zeros(2, 5, dtype=torch.float64).masked_fill(mask == 0, -1e300)[:, None, None, :]
    found = adapter(x, bias, 1)
    parts = adapter.layer[1]
    narrow = x @ adapter.down.weight.T + adapter.down.bias
    query, key, value = (narrow @ parts[n].weight.T + parts[n].bias for n in ("query", "key", "value"))
    heads = []
    for start in (0, 2, 4):
        part = slice(start, start + 2)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(2)
        heads.append(scores.masked_fill(mask[:, None, :] == 0, -math.inf).softmax(-1) @ value[..., part])
    wanted = functional.gelu(torch.cat(heads, -1) @ adapter.up.weight.T + adapter.up.bias)
    torch.testing.assert_close(found, wanted)


def adapted(kind="single", loss="cross-entropy"):
    given = tasks()
    config = TaskConfig("mood", kind, loss, head_dropout=0.0, adapter_size=8, adapter_heads=2)
    return [Task(config, given[0].train, given[0].dev), *given[1:]]


def test_a_task_with_projected_attention_leaves_the_shared_vectors_and_predicts_without_torch(make_model, tmp_path):
    from sbert_mini import Embedder, Predictor

    model = model_of(make_model)
    texts = sentences(5, 8)
    trainer = MultiTaskTrainer(
        model, arguments(tmp_path / "run", max_steps=10, learning_rate=2e-2), adapted(),
        FitterConfig(batch_size=12, head_learning_rate=5e-2),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(tmp_path / "out"))
    objective = trainer.objectives["mood"].eval()
    model.eval()
    features = model[0].preprocess(texts)
    with torch.no_grad():
        shared = model(dict(features))["sentence_embedding"]
        own = model({**features, "adapter": objective.adapter})["sentence_embedding"]
        logits = objective.outputs([own])
    assert (shared - own).abs().max() > 1e-3
    exact = Embedder(tmp_path / "out", graph="fp32", threads=1)
    np.testing.assert_allclose(exact.encode(texts), functional.normalize(shared, dim=-1).numpy(), atol=1e-5)
    for graph, tolerance in (("fp32", 1e-4), ("int8", 0.1)):
        predictor = Predictor(tmp_path / "out", "mood", graph=graph, threads=1)
        found = [list(p.probabilities.values()) for p in predictor.predict(texts)]
        np.testing.assert_allclose(found, logits.softmax(-1).numpy(), atol=tolerance)
    again = MultiTaskTrainer(model_of(make_model), arguments(tmp_path / "r2"), adapted(), FitterConfig(batch_size=12))
    again.load_heads(tmp_path / "out")
    for name, tensor in trainer.objectives["mood"].state_dict().items():
        assert torch.equal(tensor, again.objectives["mood"].state_dict()[name]), name
    file = tmp_path / "out" / "heads" / "mood" / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CorruptModelError):
        Predictor(tmp_path / "out", "mood", threads=1)


def test_adapters_are_for_tasks_with_heads():
    with pytest.raises(UsageError, match="the task have a head; found 8 for multiple-negatives-ranking"):
        TaskConfig("r", "siamese", "multiple-negatives-ranking", adapter_size=8)
    with pytest.raises(UsageError, match="multiple of adapter_heads = 4"):
        TaskConfig("r", "single", "cross-entropy", adapter_size=7)
