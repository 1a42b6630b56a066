"""Dev figures against scikit-learn and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from small_tasks import arguments, model_of, sentences, tasks, trainer_on

from sbert_mini.errors import CorruptModelError
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.evaluator import task_figures
from sbert_mini.training.examples import Examples
from sbert_mini.training.objective import Objective
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer


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


PAIRS = tuple(zip(sentences(12, 1), sentences(12, 2), strict=True))


SCORES = tuple(float(i % 6) for i in range(12))


class Dimension(torch.nn.Linear):
    """What an objective asks a model for."""

    def get_embedding_dimension(self):
        return self.in_features


def graded(structure="siamese", **options):
    rows = Examples(PAIRS, SCORES)
    return Task(TaskConfig("t", structure, "regression", high=5.0, **options), rows, rows)


@pytest.mark.parametrize(("structure", "columns"), [("siamese", 2), ("pair", 1), ("pair+siamese", 3)])
def test_a_regression_is_the_squared_error_of_a_sigmoid_and_its_figures_are_correlations(structure, columns):
    torch.manual_seed(1)
    task = graded(structure, head_dropout=0.0)
    objective = Objective(task, Dimension(3, 1)).eval()
    torch.nn.init.normal_(objective.head.output.weight)
    vectors = list(torch.randn(columns, 12, 3))
    units = [v / v.norm(dim=1, keepdim=True) * math.sqrt(3) for v in vectors]
    u, v = units[-2:] if columns > 1 else (units[0], units[0])
    x = torch.cat([*units, (u - v).abs(), u * v], dim=1) if columns > 1 else u
    predicted = 1 / (1 + torch.exp(-(x @ objective.head.output.weight[0] + objective.head.output.bias)))
    expected = ((predicted - torch.tensor(SCORES) / 5) ** 2).mean()
    torch.testing.assert_close(objective(vectors, task.targets(task.train)), expected)
    figures = task_figures(task, task.dev, objective, vectors)
    assert figures["pearson"] == pytest.approx(stats.pearsonr(predicted.detach().numpy(), SCORES).statistic, abs=1e-6)
    assert figures["spearman"] == pytest.approx(stats.spearmanr(predicted.detach().numpy(), SCORES).statistic)


def test_a_triplet_is_right_where_the_positive_is_nearer_than_its_own_negative():
    rows = Examples(tuple((f"a{i}", f"b{i}", f"c{i}") for i in range(4)))
    task = Task(TaskConfig("t", "triplet", "triplet"), rows, rows)
    anchor = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    positive = torch.tensor([[1.0, 0.1], [1.0, 1.0], [0.0, 1.0], [2.0, 0.0]])
    negative = torch.tensor([[1.0, 1.0], [1.0, 0.1], [0.0, 2.0], [-1.0, 0.0]])  # farther, nearer, as near, farther
    figures = task_figures(task, task.dev, Objective(task, Dimension(2, 1)), [anchor, positive, negative])
    assert figures == {"accuracy": 0.5}


def test_a_task_with_layers_of_its_own_is_measured_with_them(tmp_path):
    task = graded(adapter_size=8, adapter_heads=2)
    trainer = trainer_on(tmp_path, [task])
    objective = trainer.objectives["t"].eval()
    for parameter in objective.adapter.parameters():  # `up` is 0 at first, when the vectors are the shared ones
        torch.nn.init.normal_(parameter)
    torch.nn.init.normal_(objective.head.output.weight, std=0.05)
    model = trainer.model.eval()
    with torch.no_grad():
        own, shared = (
            [model({**model[0].preprocess([row[i] for row in PAIRS]), **adapter})["sentence_embedding"] for i in (0, 1)]
            for adapter in ({"adapter": objective.adapter}, {})
        )
    expected, without = (task_figures(task, task.dev, objective, vectors) for vectors in (own, shared))
    figures = trainer.evaluate()
    assert figures["eval_t_pearson"] == pytest.approx(expected["pearson"], abs=1e-5)
    assert abs(expected["pearson"] - without["pearson"]) > 1e-3


def test_a_head_of_another_shape_is_not_taken_up(tmp_path):
    trainer_on(tmp_path, [graded()]).save_model(str(tmp_path / "out"))
    other = trainer_on(tmp_path, [graded(hidden=7)], FitterConfig(batch_size=8))
    with pytest.raises(CorruptModelError, match="the head 't' is not of the task's shape"):
        other.load_heads(tmp_path / "out")


def test_another_right_answer_is_no_rival():
    from sbert_mini.training.evaluator import ranks

    near, far = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    texts = (("q", "first"), ("q", "second"), ("other", "third"))
    anchors, positives = torch.cat([near, near, far]), torch.cat([near, near, far])
    assert ranks([anchors, positives], texts).tolist() == [1, 1, 1]
    assert ranks([anchors, torch.cat([far, near, far])], texts).tolist() == [2, 1, 2]
    shared = (("q", "first"), ("r", "FIRST"), ("s", "third"))  # normalised, the first two are one answer
    assert ranks([anchors, positives], shared).tolist() == [1, 1, 1]
    assert ranks([anchors, positives], (("q", "a"), ("q", "b"), ("q", "c"))).tolist() == [0, 0, 0]
