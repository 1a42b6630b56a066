"""Figures as functions of weights against scikit-learn and SciPy on repeated rows; verdicts and their words."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score

from sbert_mini.evaluation import binary, gains
from sbert_mini.evaluation.gain_tables import against_start, comparison, start_figures

ROWS = 53
RNG = np.random.default_rng(3)
YES = RNG.integers(0, 2, ROWS)
GRADES = RNG.integers(0, 6, ROWS).astype(float)
SCORES = np.round(RNG.normal(size=ROWS) + YES, 1)  # with ties
LABELS = np.array(["a", "b", "c"])[RNG.integers(0, 3, ROWS)]
NAMED = np.where(RNG.random(ROWS) < 0.6, LABELS, "b")


@pytest.mark.parametrize(
    ("figure", "oracle"),
    [
        (gains.average_precision(YES, SCORES), lambda i: average_precision_score(YES[i], SCORES[i])),
        (gains.macro_f1(LABELS, NAMED), lambda i: f1_score(LABELS[i], NAMED[i], average="macro", zero_division=0)),
        (gains.pearson(GRADES, SCORES), lambda i: stats.pearsonr(GRADES[i], SCORES[i]).statistic),
        (gains.spearman(GRADES, SCORES), lambda i: stats.spearmanr(GRADES[i], SCORES[i]).statistic),
        (gains.share_correct(LABELS == NAMED), lambda i: np.mean((LABELS == NAMED)[i])),
    ],
)
def test_a_figure_of_weights_is_that_of_rows_that_often(figure, oracle):
    weights = np.concatenate([np.ones((1, ROWS)), *gains.draws(ROWS, 3, 1)])
    expected = [oracle(np.repeat(np.arange(ROWS), row.astype(int))) for row in weights]
    assert figure(weights) == pytest.approx(expected)


def test_what_a_draw_leaves_undefined_is_nan():
    only_no = np.where(YES == 0, 1.0, 0.0)[None, :]
    assert np.isnan(gains.average_precision(YES, SCORES)(only_no))[0]
    assert np.isnan(gains.pearson(np.ones(ROWS), SCORES)(np.ones((1, ROWS))))[0]
    assert gains.share_correct(np.array([1.0, np.nan, 0.0]))(np.ones((1, 3)))[0] == 0.5


def test_a_calibrated_answer_has_no_error_and_a_sure_wrong_one_all():
    hits = np.array([1, 1, 1, 0] * 5)
    assert gains.calibration_error(hits, np.full(20, 0.75))(np.ones((1, 20)))[0] == pytest.approx(0)
    assert gains.calibration_error(np.zeros(20), np.ones(20))(np.ones((1, 20)))[0] == pytest.approx(1)


def compared(*hits, rows=200):
    """Compare tasks, each (share right of the start, of the trained model), as if they were independent."""
    tasks = []
    for number, shares in enumerate(hits):
        rng = np.random.default_rng(number)
        sides = [gains.share_correct(rng.permutation(np.arange(rows) < share * rows)) for share in shares]
        found, drawn = gains.measure({"accuracy": tuple(sides)}, rows, resamples=400)
        tasks.append((gains.TaskGain(f"t{number}", "accuracy", rows, "cosine", found), drawn["accuracy"]))
    return gains.compare("start", tasks, lambda metric, value: value)


def test_the_verdict_and_its_words():
    better, worse, equal = compared((0.5, 0.8)), compared((0.8, 0.5)), compared((0.5, 0.5))
    assert better.verdict == "better"
    low, high = better.tasks[0].gains["accuracy"].interval
    assert low < 0.3 < high
    assert better.text == f"better than the start by {100 * low:.1f} to {100 * high:.1f} points of accuracy (95 %)"
    assert worse.verdict == "worse"
    assert worse.text.startswith("worse than the start by ")
    assert equal.text == "no difference that 200 rows can show (+0.0 points of accuracy)"
    small = compared((0.5, 0.53))
    assert small.verdict == "undecided"
    error = small.mean.error
    assert f"about {gains.rows_needed(0.03, error, 200):,} rows could" in small.text


def test_rows_needed_grow_with_the_square_of_what_is_to_be_shown():
    assert gains.rows_needed(0.1, 0.1, 100) == pytest.approx(100 * 2.8**2, rel=0.05)
    assert gains.rows_needed(0.05, 0.1, 100) == pytest.approx(400 * 2.8**2, rel=0.05)
    assert gains.rows_needed(0.0, 0.1, 100) is None


def test_the_mean_decides_and_a_worse_task_is_named():
    mixed = compared((0.2, 0.9), (0.8, 0.5))
    assert mixed.verdict == "better"
    assert mixed.mean.difference == pytest.approx(0.2)
    assert mixed.warnings[0].startswith("the task t1 is worse than the start by ")


def test_without_a_defined_figure_there_is_no_verdict():
    nothing = gains.gain_of(float("nan"), 0.5, np.full(9, np.nan))
    task = gains.TaskGain("t", "pearson", 9, "cosine", {"pearson": nothing})
    found = gains.compare("start", [(task, np.full(9, np.nan))], lambda metric, value: value)
    assert found.verdict == "undefined"
    assert "undefined" in against_start(found.to_json()).terminal()
    assert start_figures(found.to_json()) == {"t_pearson": None, "mean": None}


def test_the_table_ends_with_the_verdict_and_has_details():
    found = compared((0.5, 0.8)).to_json()
    details = {
        "classes": {name: binary.by_class(LABELS, NAMED, ["a", "b", "c"]) for name in ("start", "trained")},
        "precision_at_recall": {name: binary.precision_at_recall(YES, SCORES) for name in ("start", "trained")},
    }
    found["tasks"][0]["details"] = details
    tables = comparison(found)
    assert tables[0].terminal().splitlines()[-1] == found["text"]
    assert [table.title for table in tables] == ["Against the start", "t0 by class", "t0: precision at a recall"]
    assert comparison(None) == []
    assert start_figures(found)["mean"] == start_figures(found)["t0_accuracy"] == 0.5
