"""Dev figures against scikit-learn and SciPy."""

import numpy as np
import pytest
import torch
from small_tasks import arguments, model_of, tasks

from sbert_mini.training.config import FitterConfig
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
