"""TorchJD's rules by their names: their own aggregators on the Jacobian are the oracle; weights, state and drawn numbers."""

import json
import sys
from importlib.util import find_spec

import pytest
import torch
from small_tasks import tasks, trainer_on
from torchjd import aggregation

from sbert_mini.errors import MissingExtraError, TrainingError, UsageError
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.surgery import Surgeon
from sbert_mini.training.surgery_rules import PREFIX, TORCHJD, check_surgery

JACOBIAN = torch.tensor([[1.0, 0.2, 0.0], [-0.6, 0.8, 0.3], [-0.5, -0.9, 0.7]])  # each conflicts with each
SOLVED_HERE = [name for name in TORCHJD if name != "CAGrad" or find_spec("cvxpy")]
DRAWN = ("PCGrad", "GradVac", "Random")


def surgeon(name, weights=(1.0, 1.0, 1.0), seed=3):
    return Surgeon(PREFIX + name, seed, list(weights))


def step(name, weights=(1.0, 1.0, 1.0), jacobian=JACOBIAN):
    rows = jacobian * torch.tensor(weights)[:, None]
    return surgeon(name, weights).weights(rows @ rows.T, 0).to(rows) @ rows


@pytest.mark.parametrize("name", SOLVED_HERE)
def test_the_step_is_that_of_torchjds_aggregator_on_the_jacobian(name):
    if name == "Random":
        weights = surgeon(name).weights(JACOBIAN @ JACOBIAN.T, 0)
        assert weights.sum().item() == pytest.approx(1)
        assert (weights > 0).all()
        return
    jacobian = JACOBIAN[:2] if name in DRAWN else JACOBIAN  # of two tasks there is one order
    oracle = getattr(aggregation, name)(**TORCHJD[name].arguments)
    torch.testing.assert_close(step(name, [1.0] * len(jacobian), jacobian), oracle(jacobian), rtol=1e-4, atol=1e-5)


def test_each_rule_of_torchjd_is_a_name_or_is_refused_with_a_reason():
    for name in aggregation.__all__:
        bare = name.removesuffix("Weighting")
        if name.startswith(("Gramian", "Weight", "Aggregator")) or bare in TORCHJD:
            continue
        with pytest.raises(UsageError, match=f"{PREFIX}{bare} cannot be used here: it"):
            check_surgery(PREFIX + bare)
    with pytest.raises(UsageError, match="smooths the weights of another rule"):
        FitterConfig(surgery="torchjd:CRMOGM")
    with pytest.raises(
        UsageError, match=r"surgery must be one of pcgrad, .*; found 'torchjd:PDC' .did you mean torchjd:PCD"
    ):
        FitterConfig(surgery="torchjd:PDC")


@pytest.mark.parametrize("name", [name for name in SOLVED_HERE if name != "DualProj"])
def test_a_tasks_weight_multiplies_its_part_of_the_step(name):
    for task in range(3):
        once, twice, thrice = (step(name, [w if i == task else 1.0 for i in range(3)]) for w in (1.0, 2.0, 3.0))
        part = twice - once
        if name == "Krum":  # it takes one gradient alone
            assert part.norm() in (0, once.norm())
        else:
            assert part.norm() > 0.05 * once.norm(), "the weight has no effect"
        torch.testing.assert_close(thrice - twice, part, rtol=1e-4, atol=1e-5)


def test_weights_are_the_preference_vector_of_rules_that_have_one():
    weights = [3.0, 1.0, 0.5]
    for name in ("DualProj", "UPGrad", "AlignedMTL"):
        oracle = getattr(aggregation, name)(pref_vector=torch.tensor(weights) / 3)
        torch.testing.assert_close(step(name, weights), oracle(JACOBIAN), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in SOLVED_HERE if name not in ("Krum", "Random")])
def test_a_task_of_weight_0_is_left_out(name):
    found = step(name, [1.0, 0.0, 1.0])
    jacobian = JACOBIAN[[0, 2]]

    torch.testing.assert_close(found, step(name, [1.0, 1.0], jacobian), rtol=1e-4, atol=1e-5)
    assert surgeon(name, [0.0] * 3).weights(torch.zeros(3, 3), 0).tolist() == [0, 0, 0]


def test_short_gradients_are_projected_too():
    short = 1e-4 * JACOBIAN  # TorchJD's own solver takes a Gram matrix of this size for zero
    torch.testing.assert_close(1e4 * step("UPGrad", jacobian=short), step("UPGrad"))
    assert ((short @ step("UPGrad", jacobian=short)) >= -1e-12).all()


@pytest.mark.parametrize("name", ["PCD", "GradVac"])
def test_a_rules_state_goes_on_exactly_through_json(name):
    generator = torch.Generator().manual_seed(5)
    grams = [m @ m.T for m in torch.randn(4, 3, 6, generator=generator)]
    first = surgeon(name)
    for number, gram in enumerate(grams[:3]):
        first.weights(gram, number)
    saved = json.loads(json.dumps(first.state()))
    resumed = surgeon(name)
    resumed.load_state(saved)
    expected = first.weights(grams[3], 3)
    assert torch.equal(resumed.weights(grams[3], 3), expected)
    assert resumed.state() == first.state()
    assert not torch.equal(surgeon(name).weights(grams[3], 3), expected), "the test needs a state that matters"


def test_numbers_are_drawn_from_seed_and_step_alone():
    gram = JACOBIAN @ JACOBIAN.T
    for name in ("PCGrad", "Random"):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        first = [surgeon(name).weights(gram, number) for number in range(8)]
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(3)
        assert torch.equal(torch.stack(first), torch.stack([surgeon(name).weights(gram, n) for n in range(8)]))
        assert len({tuple(weights.tolist()) for weights in first}) > 2
        other = [surgeon(name, seed=4).weights(gram, number) for number in range(8)]
        assert not torch.equal(torch.stack(first), torch.stack(other))


def test_what_a_rule_cannot_do_is_one_error(monkeypatch):
    with pytest.raises(UsageError, match="torchjd:Krum is not for 2 tasks"):
        surgeon("Krum", (1.0, 1.0))
    with pytest.raises(UsageError, match="torchjd:PCD needs the tasks' weights"):
        Surgeon("torchjd:PCD")
    with pytest.raises(TrainingError, match="torchjd:PCD gave weights that are not finite at step 8"):
        surgeon("PCD").weights(torch.full((3, 3), torch.nan), 7)
    if find_spec("cvxpy") is None:
        with pytest.raises(
            UsageError, match=r"torchjd:CAGrad needs a solver that is not installed: .*torchjd\[cagrad\]"
        ):
            surgeon("CAGrad")
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(MissingExtraError, match=r"torchjd:PCD needs the package torchjd, .*sbert-mini\[torchjd\]"):
        surgeon("PCD")


def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(tmp_path):
    config = FitterConfig(batch_size=12, surgery="torchjd:PCD", steps_per_epoch=2)
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2}
    whole = trainer_on(tmp_path / "a", tasks(), config, **options)
    whole.train()
    stopped = trainer_on(tmp_path / "b", tasks(), config, **options)
    stopped.train(resume_from_checkpoint=str(tmp_path / "a" / "run" / "checkpoint-2"))
    expected = whole.model.state_dict()
    for name, tensor in stopped.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
