"""Distillation, vectors whose beginnings work too, and encoders with fewer layers."""

import json

import numpy as np
import pytest
import torch
from conftest import one_error, run_here
from small_tasks import sentences
from torch.nn import functional

from sbert_mini import Embedder
from sbert_mini.encoder.module import load
from sbert_mini.errors import UnsupportedModelError, UsageError
from sbert_mini.training.distill import DistillationLoss, teacher_vectors
from sbert_mini.training.examples import Examples
from sbert_mini.training.objective import Objective
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

RNG = np.random.default_rng(5)


def vectors(*shape):
    return torch.tensor(RNG.normal(size=shape), dtype=torch.float32)


def test_the_loss_is_as_written_and_zero_for_the_teachers_own_vectors():
    student, teacher = vectors(5, 8), vectors(5, 8)
    s, t = (x / x.norm(dim=1, keepdim=True) for x in (student, teacher))
    expected = 0.0
    for i in range(5):
        expected += 2.0 * float(1 - s[i] @ t[i]) / 5
        expected += sum(3.0 * float(s[i] @ s[j] - t[i] @ t[j]) ** 2 for j in range(5)) / 25
    loss = DistillationLoss(vector_weight=2.0, similarity_weight=3.0)
    assert float(loss.compute_loss_from_embeddings([student], teacher)) == pytest.approx(expected, rel=1e-5)
    assert float(loss.compute_loss_from_embeddings([7 * teacher], teacher)) == pytest.approx(0, abs=1e-6)
    turned = teacher @ torch.linalg.qr(vectors(8, 8))[0]
    assert float(DistillationLoss(0.0).compute_loss_from_embeddings([turned], teacher)) == pytest.approx(0, abs=1e-6)


def test_a_student_of_another_dimension_is_compared_by_similarities():
    student, teacher = vectors(4, 3), vectors(4, 8)
    s, t = functional.normalize(student, dim=1), functional.normalize(teacher, dim=1)
    expected = float((s @ s.T - t @ t.T).square().mean())
    assert float(DistillationLoss().compute_loss_from_embeddings([student], teacher)) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("loss", ["multiple-negatives-ranking", "cosine-mse", "cosent"])
def test_a_nested_loss_is_the_mean_over_the_whole_vectors_and_their_beginnings(make_model, loss):
    model = load(make_model(seed=1), device="cpu")
    pairs = Examples(tuple(zip(sentences(6, 1), sentences(6, 2), strict=True)), tuple(float(i % 2) for i in range(6)))
    dim = model.get_embedding_dimension()
    plain, nested = (
        Objective(Task(TaskConfig("t", "siamese", loss, dimensions=d), pairs), model) for d in ((), (dim // 2, 4))
    )
    u, v, targets = vectors(6, dim), vectors(6, dim), torch.tensor([0.0, 1.0] * 3)
    parts = [float(plain([u[:, :d], v[:, :d]], targets)) for d in (dim, dim // 2, 4)]
    assert len(set(parts)) == 3
    assert float(nested([u, v], targets)) == pytest.approx(sum(parts) / 3, rel=1e-5)


def test_dimensions_that_cannot_be_are_refused(make_model):
    model = load(make_model(seed=1), device="cpu")
    rows = Examples((("a",), ("b",)))
    with pytest.raises(UsageError, match="at most the model's"):
        Objective(Task(TaskConfig("t", "single", "multiple-negatives-ranking", dimensions=(4096,)), rows), model)
    with pytest.raises(UsageError, match="dimensions are at least 1"):
        TaskConfig("t", "single", "cross-entropy", dimensions=(4,))
    with pytest.raises(UsageError, match="dimensions are at least 1"):
        TaskConfig("t", "siamese", "cosent", dimensions=(0,))


def test_a_teachers_vectors_are_those_of_its_fp32_graph_and_are_computed_once(make_model, tmp_path):
    model = make_model(seed=1)
    texts = sentences(9, 3)
    told = []
    found = teacher_vectors(texts, model, tmp_path / "kept", threads=1, on_progress=told.append)
    np.testing.assert_allclose(found, Embedder(model, graph="fp32").encode(texts), atol=1e-6)
    again = teacher_vectors(texts, model, tmp_path / "kept", threads=1, on_progress=told.append)
    np.testing.assert_array_equal(found, again)
    assert len(told) == 1
    other = teacher_vectors(texts, make_model(seed=2), tmp_path / "kept", threads=1, on_progress=told.append)
    assert len(told) == 2
    assert np.abs(other - found).max() > 0.01


def test_a_teacher_with_another_tokenizer_must_be_trusted(make_model, tmp_path):
    model = make_model(seed=1)
    load(model, device="cpu")[0].text_tokenizer.save(model)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(json.dumps({**tokenizer, "pre_tokenizer": {"type": "WhitespaceSplit"}}))
    with pytest.raises(UnsupportedModelError, match="of a teacher; in Python"):
        teacher_vectors(["the cat"], model, tmp_path / "kept", threads=1)
    assert teacher_vectors(["the cat"], model, tmp_path / "kept", threads=1, trust_tokenizer=True).shape == (1, 28)


def test_a_task_that_lacks_its_teachers_vectors_is_refused(make_model):
    rows = Examples((("a",), ("b",)))
    task = Task(TaskConfig("t", "single", "distillation"), rows)
    with pytest.raises(UsageError, match="needs teacher_vectors"):
        MultiTaskTrainer(load(make_model(seed=1), device="cpu"), tasks=[task])
    other = Task(TaskConfig("t", "single", "distillation"), rows, teacher_vectors=np.ones((2, 5), np.float32))
    with pytest.raises(UsageError, match="5 components, the model's 28: set vector_weight = 0"):
        MultiTaskTrainer(load(make_model(seed=1), device="cpu"), tasks=[other])
    with pytest.raises(UsageError, match="one a row; found 3"):
        Task(TaskConfig("t", "single", "distillation"), rows, teacher_vectors=np.zeros((3, 4), np.float32))


def test_kept_layers_compute_what_they_computed(make_model):
    whole = load(make_model(seed=1, num_hidden_layers=3), device="cpu")[0].model
    part = load(make_model(seed=1, num_hidden_layers=3), device="cpu")[0].model
    part.keep_layers([0, 2])
    assert part.config.num_hidden_layers == 2
    ids = torch.tensor([[2, 5, 7, 3]])
    states = whole(ids, output_hidden_states=True).hidden_states
    assert states is not None
    first = part(ids, output_hidden_states=True).hidden_states
    assert first is not None
    torch.testing.assert_close(first[1], states[1])
    assert len(first) == 3
    for wrong in ([], [0, 0], [3], [-1]):
        with pytest.raises(UsageError, match="layers must be some of"):
            part.keep_layers(wrong)


def test_a_student_of_fewer_layers_comes_nearer_its_teacher_through_the_command(workshop, make_model):
    teacher = make_model(seed=4, num_hidden_layers=2)
    texts = sentences(60, 8)
    (workshop / "texts.txt").write_text("".join(f"{text}\n" for text in texts), "utf-8")
    recipe = f"""
[model]
start = {json.dumps(str(teacher))}
layers = [0]
output = "student"
[train]
steps = {{steps}}
batch_size = 16
[optimizer]
learning_rate = 3e-3
[[task]]
name = "texts"
structure = "single"
loss = "distillation"
train = "texts.txt"
teacher = {json.dumps(str(teacher))}
teacher_graph = "int8"
dimensions = [4]
"""
    (workshop / "recipe.toml").write_text(recipe.replace("{steps}", "1"), "utf-8")
    done = run_here(workshop, "train", "recipe.toml", "--threads", 1, "--dry-run", "-q")
    assert done.returncode == 0, done.stderr
    assert "distillation" in done.stdout
    assert not (workshop / "student.run").exists()
    errors = []
    for steps in (1, 60):
        (workshop / "recipe.toml").write_text(
            recipe.replace("{steps}", str(steps)).replace('"student"', f'"student{steps}"')
        )
        done = run_here(workshop, "train", "recipe.toml", "--threads", 1, "-q")
        assert done.returncode == 0, done.stderr
        embedder = Embedder(workshop / f"student{steps}", graph="fp32")
        assert embedder.path.joinpath("README.md").read_text("utf-8").count("distillation") >= 2
        cosines = (embedder.encode(texts) * Embedder(teacher, graph="fp32").encode(texts)).sum(axis=1)
        errors.append(1 - float(cosines.mean()))
    assert errors[1] < 0.5 * errors[0]
    assert json.loads((workshop / "student1" / "config.json").read_text())["num_hidden_layers"] == 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('loss = "distillation"', 'loss = "distillation"\ndev = "texts.txt"', "no dev figure under distillation"),
        ('teacher = "T"', "", "task.teacher is for the loss distillation"),
        ("dimensions = [4]", "dimensions = [4.5]", "task.dimensions must be a list of whole numbers"),
        ("dimensions = [4]", "dimensions = [0]", "task.dimensions are at least 1"),
        ("layers = [0]", "layers = [9]", "layers must be some of 0 to"),
    ],
)
def test_what_cannot_be_meant_is_refused(workshop, make_model, old, new, says):
    model = json.dumps(str(make_model(seed=4)))
    (workshop / "texts.txt").write_text("the cat\nthe dog\n", "utf-8")
    text = f"""
[model]
start = {model}
layers = [0]
output = "student"
[train]
steps = 1
[[task]]
name = "texts"
structure = "single"
loss = "distillation"
train = "texts.txt"
teacher = "T"
dimensions = [4]
"""
    assert old in text
    (workshop / "recipe.toml").write_text(text.replace(old, new).replace('"T"', model), "utf-8")
    one_error(run_here(workshop, "train", "recipe.toml", "-q"), 2, says)
