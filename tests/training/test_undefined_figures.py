"""What is not defined is None, in each place: figures, means, the best step, the log, the card, tables and pictures."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import tiny_model
from scipy import stats
from small_tasks import sentences, trainer_on

from sbert_mini.evaluation import figures, sts, tables
from sbert_mini.evaluation.contestants import Contestant
from sbert_mini.evaluation.sets import PairSet
from sbert_mini.recipes.record import thinned
from sbert_mini.training.checks import why_unmeasurable
from sbert_mini.training.evaluator import standing, task_figures
from sbert_mini.training.examples import Examples
from sbert_mini.training.objective import Objective
from sbert_mini.training.stopping import Patience
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task


def graded(scores, name="sts", dev=None):
    def examples(values, seed):
        texts = tuple(zip(sentences(len(values), seed), sentences(len(values), seed + 1), strict=True))
        return Examples(texts, tuple(map(float, values)))

    return Task(TaskConfig(name, "siamese", "cosent", high=5.0), examples(scores, 1), examples(dev or scores, 7))


def figures_of(task, *vectors):
    return task_figures(task, task.dev, Objective(task, _model()), vectors)


def _model():
    model = torch.nn.Linear(1, 1)
    model.get_embedding_dimension = lambda: 32
    return model


def test_correlations_are_scipys_and_none_where_one_side_is_constant():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(6, 32, generator=generator) for _ in range(2))
    found = figures_of(graded([0, 1, 2, 3, 4, 5]), first, second)
    cosine = torch.nn.functional.cosine_similarity(first, second).double().numpy()
    assert found["pearson"] == pytest.approx(stats.pearsonr(cosine, np.arange(6)).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(cosine, np.arange(6)).statistic)
    nothing = {"pearson": None, "spearman": None}
    assert figures_of(graded([0, 1], dev=[3, 3, 3, 3, 3, 3]), first, second) == nothing
    # A collapsed model: one direction for all texts, of lengths that let the cosines round to several numbers near 1.
    lengths = torch.linspace(0.3, 3, 6)[:, None]
    collapsed = torch.randn(1, 32, generator=generator) * lengths
    assert figures_of(graded([0, 1, 2, 3, 4, 5]), collapsed, collapsed.flip(0)) == nothing


def test_a_ranking_with_nothing_to_rank_is_none_and_no_row_is_right_for_want_of_others():
    def ranked(count):
        rows = tuple((f"a{i}", f"b{i}") for i in range(count))
        return Task(TaskConfig("rank", "siamese", "multiple-negatives-ranking"), Examples(rows), Examples(rows))

    vector = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    assert figures_of(ranked(1), vector, vector) == {"accuracy": None}
    rows = tuple((f"a{i}", "the same") for i in range(4))
    same = Task(TaskConfig("rank", "siamese", "multiple-negatives-ranking"), Examples(rows), Examples(rows))
    assert figures_of(same, vector.expand(4, 32), vector.expand(4, 32)) == {"accuracy": None}
    # 1,001 rows of equal vectors: none is nearer than the others, the last one in a block of its own neither.
    assert figures_of(ranked(1001), vector.expand(1001, 32), vector.expand(1001, 32)) == {"accuracy": 0.0}


def test_a_dev_set_that_no_model_can_be_measured_on_is_named():
    rows = (("a", "b"), ("c", "d"), ("e", "f"))
    assert why_unmeasurable(Examples(rows, (3.0, 3.0, 3.0)), scored=True, ranked=False) == "all 3 scores are 3"
    assert why_unmeasurable(Examples(rows[:1], (3.0,)), scored=True, ranked=False) == "there is one row"
    assert why_unmeasurable(Examples(rows, (3.0, 3.0, 2.0)), scored=True, ranked=False) == ""
    assert why_unmeasurable(Examples(rows[:1]), scored=False, ranked=True) == "there is one row"
    assert why_unmeasurable(Examples((("a", "b"), ("c", "b"))), scored=False, ranked=True)
    assert why_unmeasurable(Examples((("a", "b", "b"),) * 2), scored=False, ranked=True)
    assert why_unmeasurable(Examples((("a", "b", "c"),) * 2), scored=False, ranked=True) == ""
    assert why_unmeasurable(Examples(rows, ("x", "x", "x")), scored=False, ranked=False) == ""  # an accuracy is defined


def test_an_evaluation_with_more_defined_figures_goes_before_a_greater_mean_over_fewer():
    both = [TaskConfig("a", "siamese", "cosent"), TaskConfig("b", "siamese", "cosent")]
    whole = {"a_pearson": 0.2, "b_pearson": 0.2, "mean": 0.6}
    part = {"a_pearson": 0.9, "b_pearson": None, "mean": 0.95}
    assert standing(whole, both) > standing(part, both) == (1, 0.95)
    assert standing({"a_pearson": None, "b_pearson": None, "mean": None}, both) is None


def test_a_constant_dev_set_counts_in_no_mean_and_chooses_no_step(tmp_path):
    scores = [0, 1, 2, 3, 4, 5] * 2
    given = [graded(scores, "flat", dev=[3] * 6), graded(scores, "fine", dev=[5, 0, 4, 1, 3, 2])]
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    options |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_mean", "greater_is_better": True}
    trainer = trainer_on(tmp_path, given, **options)
    trainer.train()
    seen = [line for line in trainer.state.log_history if "eval_mean" in line]
    assert [line["eval_flat_pearson"] for line in seen] == [None] * 4
    assert all(line["eval_mean"] == (line["eval_fine_pearson"] + 1) / 2 for line in seen)
    assert trainer.state.best_global_step == max(seen, key=lambda line: line["eval_mean"])["step"]
    json.dumps(trainer.state.log_history, allow_nan=False)

    alone = trainer_on(tmp_path, given[:1], callbacks=[Patience(1, [given[0].config])], **options)
    alone.train()
    assert alone.state.best_global_step is None
    assert alone.state.global_step == 4  # patience waits for a mean that is defined
    last = {name: tensor.clone() for name, tensor in alone.model.state_dict().items()}
    again = trainer_on(tmp_path, given[:1])
    again.train()
    assert all(torch.equal(last[name], tensor) for name, tensor in again.model.state_dict().items())


def test_a_dynamic_schedule_goes_by_the_loss_where_a_figure_is_none(tmp_path):
    from sbert_mini.training.config import FitterConfig

    given = [graded([0, 5] * 6, "flat", dev=[3] * 6), graded([0, 5] * 6, "fine", dev=[5, 0, 4, 1, 3, 2])]
    trainer = trainer_on(
        tmp_path, given, FitterConfig(batch_size=8, schedule="dynamic"), eval_strategy="steps", eval_steps=2
    )
    trainer.train()
    assert [sum(change.sizes) for change in trainer.schedule.history] == [8] * len(trainer.schedule.history)


def test_curves_pass_over_null():
    lines = [{"step": 1, "x": None}, {"step": 2, "x": 3.0}]
    assert thinned(lines, 1) == {"step": [1.5], "x": [3.0]}


def contestant(vectors, name="toy"):
    def encode(texts):
        return np.array([vectors[text] for text in texts], np.float32)

    return Contestant(name, "toy", encode, encode, encode)


def pair_set(scores, subsets):
    n = len(scores)
    first, second = tuple(f"l{i}" for i in range(n)), tuple(f"r{i}" for i in range(n))
    return PairSet(name="set", first=first, second=second, scores=tuple(scores), subsets=tuple(subsets), source="toy")


def vectors_with(cosines):
    found = {f"l{i}": (1.0, 0.0) for i in range(len(cosines))}
    return found | {f"r{i}": (c, math.sqrt(1 - c * c)) for i, c in enumerate(cosines)}


@pytest.mark.parametrize("pooling", ["mean", "wmean"])
def test_a_subset_of_one_gold_score_is_left_out_of_the_pooled_mean(pooling):
    held = pair_set([0, 1, 2, 4, 4, 4, 0, 2, 1, 3], "aaabbbcccc")
    cosines = [0.1, 0.3, 0.2, 0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.4]
    result = sts.score([contestant(vectors_with(cosines))], [held], pooling=pooling, resamples=100)
    (found,) = result.models[0].sets
    a, c = (100 * stats.spearmanr(cosines[s], held.scores[s]).statistic for s in (slice(0, 3), slice(6, 10)))
    assert found.spearman == pytest.approx((a + c) / 2 if pooling == "mean" else (3 * a + 4 * c) / 7)
    assert found.subsets["b"]["spearman"] is None
    assert found.left_out == ("b",)
    shown = tables.sts(json.loads(json.dumps(result.to_json(), allow_nan=False)))[0].markdown()
    assert "set: the subset b is undefined (one pair, or gold scores that are all equal), and left out." in shown


def test_a_collapsed_model_is_undefined_in_tables_and_pictures_and_so_is_its_p():
    held = pair_set([0, 1, 2, 3], [""] * 4)
    flat = contestant(vectors_with([0.3, 0.3 + 2e-7, 0.3 - 2e-7, 0.3]), "flat")
    result = sts.score([flat, contestant(vectors_with([0.1, 0.2, 0.3, 0.4]), "fine")], [held], resamples=100)
    (found,) = result.models[0].sets
    assert (found.spearman, found.pearson, found.spearman_interval, found.pearson_interval) == (None,) * 4
    assert found.undefined == "the model gives all pairs the same cosine"
    assert (result.models[0].mean, result.models[0].mean_of) == (None, ())
    assert result.comparisons[0].differences == ()
    table = tables.sts(result.to_json())[0]
    assert table.rows[0][1:] == ("undefined", "undefined")
    assert "there is no mean, since no set counts" in " ".join(table.notes)
    assert figures.sts_bars(result.to_json()).startswith(b"\x89PNG")


def test_a_constant_draw_is_none_where_the_mean_of_equal_numbers_rounds():
    gold = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.7])
    assert gold[:3].mean() != 0.1
    spearmans, pearsons = sts.bootstrap(gold[:3], np.array([[0.2, 0.3, 0.4]]), [""] * 3, "all", 100, 0)
    assert np.isnan(spearmans).all()
    assert np.isnan(pearsons).all()


def test_train_says_undefined_in_its_lines_its_json_and_its_card(tmp_path, sbmini_here):
    (tmp_path / "start").mkdir()
    tiny_model(tmp_path / "start", hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    rows = list(zip(sentences(24, 1), sentences(24, 2), range(24), strict=True))
    table = "sentence1\tsentence2\tscore\n"
    (tmp_path / "train.tsv").write_text(table + "".join(f"{a}\t{b}\t{i % 6}\n" for a, b, i in rows))
    (tmp_path / "dev.tsv").write_text(table + "".join(f"{a}\t{b}\t{3 if i < 9 else i % 6}\n" for a, b, i in rows))
    (tmp_path / "r.toml").write_text(
        '[model]\nstart = "start"\noutput = "out"\n[train]\nsteps = 4\nbatch_size = 8\n[evaluation]\nevery = 2\n'
        '[[task]]\nname = "t"\nstructure = "siamese"\nloss = "cosine-embedding"\ntrain = "train.tsv"\ndev = "dev.tsv"\n'
        'label = "score"\nhigh = 5.0\ndev_limit = 9\n'
    )
    done = sbmini_here("train", "r.toml", "--threads", "1", "--offline")
    assert done.returncode == 0, done.stderr
    lines, _, against = done.stdout.partition("\n\n")
    assert lines.split() == ["t", "pearson", "undefined", "t", "spearman", "undefined", "mean", "undefined"]
    assert against.splitlines()[-1] == "no figure is defined that both models could be compared by"
    assert "task t: dev: all 9 scores are 3: its dev figures are undefined, and no mean counts them" in done.stderr
    assert "the weights of step 4 -> " in done.stderr
    assert tables.NO_BEST in done.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| t pearson | undefined |" in card
    assert tables.NO_BEST in card
    lines = [json.loads(line) for line in (tmp_path / "out.run" / "log.jsonl").read_text().splitlines()]
    assert [line["eval_mean"] for line in lines if "eval_mean" in line] == [None, None]
