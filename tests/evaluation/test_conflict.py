"""The analysis of the experiment on conflicting tasks, on made-up results whose answers are known."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks import conflict, conflict_analysis

PNG = b"\x89PNG"
RATES = conflict.RATES


def made_up(arm, share, seed, similarity, retrieval, rate=5e-5, dev=None, step_s=1.0, negative=0.6):
    return {
        "arm": arm, "share": share, "rate": rate, "seed": seed, "step_s": step_s, "conflict": negative,
        "test": {"similarity": similarity, "retrieval": retrieval},
        "dev": {"similarity": dev or similarity, "retrieval": dev or retrieval},
    }  # fmt: skip


def experiment(heights, negative=0.6):
    """Two sums on a falling line of similarity + retrieval = 140, noise of the seed on both; rules `heights` points above it."""
    runs = []
    for seed in (1, 2, 3):
        noise = 0.3 * seed
        for name, below in (("sum", 0.0), ("sum-normalized", 1.0)):
            for share in conflict.SHARES:
                x, y = 60 + 20 * share + noise - below, 80 - 20 * share + noise - below
                runs.append(made_up(name, share, seed, x, y, negative=negative))
        for arm, by_seed in heights.items():
            h = by_seed[seed - 1]
            runs.append(made_up(arm, 0.5, seed, 71 + noise + h, 69 + noise + h, step_s=1.05, negative=negative))
    for arm in {*heights, "sum", "sum-normalized"}:  # other rates, which are worse
        runs += [made_up(arm, 0.5, 1, 50.0, 50.0, rate=rate) for rate in RATES if rate != 5e-5]
    return runs


def test_height_is_what_both_figures_could_lose_until_the_curve_has_both():
    curve = [(60.0, 80.0), (70.0, 70.0), (80.0, 60.0)]
    assert conflict_analysis.height((70.0, 70.0), curve) == pytest.approx(0)
    assert conflict_analysis.height((72.0, 72.0), curve) == pytest.approx(2)
    assert conflict_analysis.height((65.0, 73.0), curve) == pytest.approx(-1, abs=0.01)
    assert conflict_analysis.height((83.0, 50.0), curve) == pytest.approx(3)  # beyond the curve's end
    assert conflict_analysis.height((55.0, 79.0), curve) == pytest.approx(-1)  # beside it, and no better
    assert conflict_analysis.height((71.0, 75.0), [(70.0, 70.0)]) == pytest.approx(5)


def test_a_rule_above_the_curve_helps_and_one_on_it_does_not():
    heights = {"pcgrad": (2.0, 2.1, 1.9), "torchjd:PCD": (0.1, -0.1, 0.0), "torchjd:IMTLG": (-3.0, -3.1, -2.9)}
    result = conflict_analysis.analysed(experiment(heights), RATES, 1)
    arms = result["arms"]
    for arm, by_seed in heights.items():
        found = arms[arm]["height"]
        assert found["mean"] == pytest.approx(np.mean(by_seed), abs=0.02)
        low, high = stats.t.interval(0.95, 2, np.mean(by_seed), stats.sem(by_seed))
        assert (found["low"], found["high"]) == (pytest.approx(low, abs=0.05), pytest.approx(high, abs=0.05))
    assert arms["pcgrad"]["verdict"] == "above the curve: it helps"
    assert arms["torchjd:IMTLG"]["verdict"] == "below the curve: it hurts"
    assert arms["torchjd:PCD"]["verdict"] == "no difference that these seeds can show"
    assert "height" not in arms["sum"]
    assert arms["pcgrad"]["similarity_to_sum"]["mean"] == pytest.approx(3.0)  # 71 + 2 against 70
    assert arms["pcgrad"]["step_to_sum"] == pytest.approx(1.05)
    assert arms["pcgrad"]["rate"] == 5e-5
    assert result["tested"]
    table = "\n".join(table.markdown() for table in conflict_analysis.tables(result))
    assert "| pcgrad | 5e-5 | 3 | 73.60" in table
    assert "it helps" in table
    assert conflict_analysis.picture(result).startswith(PNG)


def test_without_conflict_the_question_is_not_answered():
    result = conflict_analysis.analysed(experiment({"pcgrad": (2.0, 2.1, 1.9)}, negative=0.1), RATES, 1)
    assert not result["tested"]
    assert "the question is not answered" in "\n".join(t.markdown() for t in conflict_analysis.tables(result))


def test_rates_are_chosen_on_dev_and_half_an_experiment_can_be_shown():
    runs = [made_up("sum", 0.5, 1, 70, 70, rate=rate, dev=dev) for rate, dev in zip(RATES, (60, 62, 61), strict=True)]
    assert conflict_analysis.chosen_rates(runs[:2], RATES, 1) == {}
    assert conflict_analysis.chosen_rates(runs, RATES, 1) == {"sum": RATES[1]}
    result = conflict_analysis.analysed(runs, RATES, 1)
    assert result["arms"]["sum"]["similarity"] == {"mean": 70, "low": None, "high": None, "p": None}
    assert conflict_analysis.picture(result).startswith(PNG)


def test_holm_is_what_it_is_by_hand():
    found = conflict_analysis.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9})
    assert found == {
        "a": pytest.approx(0.04),
        "c": pytest.approx(0.09),
        "b": pytest.approx(0.09),
        "d": pytest.approx(0.9),
    }


def test_the_t_test_is_scipys():
    values = [1.2, 0.4, 0.9]
    assert conflict_analysis.t_test(values)["p"] == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert conflict_analysis.t_test([0.0, 0.0])["p"] == 1
    assert conflict_analysis.t_test([1.0, 1.0])["p"] == 0


def test_the_runs_that_are_wanted_are_those_of_the_protocol(tmp_path):
    assert len(conflict.wanted([])) == len(conflict.ARMS) * len(RATES)
    runs = [made_up(arm, 0.5, 1, 70, 70, rate=rate) for arm in conflict.ARMS for rate in RATES]
    specs = conflict.wanted(runs)
    assert len(specs) == len({spec.file for spec in specs}) == conflict.TOTAL
    assert {spec.share for spec in specs if spec.arm == "pcgrad"} == {0.5}
    (tmp_path / "sum.0.5.2e-05.seed1.json").write_text(json.dumps({"steps": 4}))
    with pytest.raises(SystemExit, match="of another number of steps"):
        conflict.done_in(tmp_path, 300)


@pytest.mark.parametrize("arm", conflict.ARMS)
def test_each_arm_is_a_sound_recipe(tmp_path, arm):
    from sbert_mini.recipes.reader import read_recipe

    spec = conflict.Spec(arm, 0.3, 5e-5, 1)
    for task in ("similarity", "retrieval") if arm == conflict.EXPERTS else ("",):
        (tmp_path / "r.toml").write_text(conflict.recipe(spec, tmp_path, 300, task))
        found = read_recipe(tmp_path / "r.toml")
        assert found.train.surgery == ("sum" if task else arm)
        assert found.train.batch_size == 16 * len(found.tasks)
        assert [t.config.weight for t in found.tasks] == (
            [0.6, 1.4] if not task else [0.6 if task == "similarity" else 1.4]
        )
