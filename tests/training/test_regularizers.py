"""SMART and R-Drop against their papers."""

import pytest
import torch
from small_tasks import arguments, model_of, tasks
from torch.nn import functional

from sbert_mini.errors import UsageError
from sbert_mini.training.config import FitterConfig, RegularizationConfig
from sbert_mini.training.r_drop import RDrop
from sbert_mini.training.regularizers import Pass
from sbert_mini.training.smart import Bregman, Smart
from sbert_mini.training.trainer import MultiTaskTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


def linear_pass(x, weights, *, labels=None, classes=True):
    """A pass of a model that is linear in its mean embedding: what it should be told by hand."""

    def outputs(further):
        found = (x + further.get("perturbation", 0)).mean(dim=1) @ weights
        return found if classes else found[:, 0]

    own = outputs({})
    labels = torch.zeros(len(x), dtype=torch.long) if labels is None else labels
    loss_of = (lambda z: functional.cross_entropy(z, labels)) if classes else (lambda z: z.pow(2).mean())
    return Pass(own, loss_of(own), loss_of, tuple(x.shape), outputs, classes)


def symmetric_kl(z, y):
    p, q = z.softmax(-1), y.softmax(-1)
    return ((p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)).mean()


def test_the_divergence_is_the_symmetric_kl_or_the_squared_difference():
    z, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    clean = Pass(z, torch.zeros(()), None, (5, 1, 1), lambda f: z, True)
    torch.testing.assert_close(clean.divergence(y), symmetric_kl(z, y))
    score = Pass(z[:, 0], torch.zeros(()), None, (5, 1, 1), lambda f: z, False)
    torch.testing.assert_close(score.divergence(y[:, 0]), ((z - y)[:, 0] ** 2).mean())


def test_smart_takes_the_step_of_algorithm_1():
    """With no noise at first the gradient of the divergence is 0 and so is the step; with noise it is this, by hand."""
    torch.manual_seed(0)
    x, weights = torch.randn(4, 3, 6, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    rule = Smart(2.0, radius=0.05, step_size=0.02, steps=2, noise=0.01)
    torch.manual_seed(5)
    found = rule(linear_pass(x, weights))
    torch.manual_seed(5)
    delta = torch.randn(4, 3, 6, dtype=torch.float64) * 0.01
    fixed = x.mean(1) @ weights
    for _ in range(2):
        step = delta.clone().requires_grad_()
        symmetric_kl((x + step).mean(1) @ weights, fixed).backward()
        scaled = torch.stack([g / g.abs().max() for g in step.grad])
        delta = (delta + 0.02 * scaled).clamp(-0.05, 0.05)
    torch.testing.assert_close(found, 2.0 * symmetric_kl((x + delta).mean(1) @ weights, fixed))


def test_smart_stays_in_its_ball_and_finds_worse_than_chance():
    torch.manual_seed(1)
    x, weights = torch.randn(8, 3, 6, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    clean = linear_pass(x, weights)
    rule = Smart(1.0, radius=0.1, step_size=0.1, steps=3, noise=0.01)
    delta = rule.perturbation(clean)
    assert delta.abs().max() <= 0.1
    worst = clean.divergence(clean.run({"perturbation": delta}))
    chance = [clean.divergence(clean.run({"perturbation": 0.1 * torch.randn_like(x).sign()})) for _ in range(50)]
    assert worst > max(chance)


def test_r_drop_is_half_of_both_losses_and_the_divergence():
    torch.manual_seed(2)
    first, second = torch.randn(6, 4), torch.randn(6, 4)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])

    def loss_of(z):
        return functional.cross_entropy(z, labels)

    clean = Pass(first, loss_of(first), loss_of, (6, 1, 1), lambda further: second, True)
    p, q = first.softmax(-1), second.softmax(-1)
    kl = functional.kl_div(q.log(), p, reduction="batchmean") + functional.kl_div(p.log(), q, reduction="batchmean")
    wanted = 0.5 * (loss_of(first) + loss_of(second)) + 3.0 * 0.5 * kl
    torch.testing.assert_close(clean.loss + RDrop(3.0)(clean), wanted)
    same = Pass(first, loss_of(first), loss_of, (6, 1, 1), lambda further: first, True)
    assert float(RDrop(3.0)(same)) == pytest.approx(0.0, abs=1e-7)


def test_the_proximal_term_is_the_divergence_from_the_average_and_has_no_gradient_there():
    z = torch.randn(5, 3, requires_grad=True)
    before = torch.randn(5, 3, requires_grad=True)
    clean = Pass(z, torch.zeros(()), None, (5, 1, 1), lambda further: z, True, lambda: before * 1)
    found = Bregman(0.5)(clean)
    torch.testing.assert_close(found, 0.5 * symmetric_kl(z, before))
    found.backward()
    assert z.grad is not None
    assert before.grad is None


@pytest.mark.parametrize(
    "build", [lambda: Smart(-1), lambda: Smart(1, steps=0), lambda: RDrop(-1), lambda: Bregman(-1)]
)
def test_rules_refuse_what_cannot_be_meant(build):
    with pytest.raises(UsageError):
        build()


def test_without_dropout_r_drop_and_the_first_proximal_term_change_neither_loss_nor_gradient(make_model, tmp_path):
    """The second pass says what the first one said, and θ̃ is θ: both divergences are at their least, 0."""
    from transformers import TrainerCallback

    def first_step(**options):
        class Grads(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, **more):
                named = dict(model.named_parameters())
                found.update({n: p.grad.to_dense().clone() for n, p in named.items() if p.grad is not None})

        found = {}
        model = model_of(make_model)
        torch.manual_seed(0)
        trainer = MultiTaskTrainer(
            model, arguments(tmp_path, max_steps=1, max_grad_norm=0), tasks()[:2],
            FitterConfig(batch_size=8, regularization=RegularizationConfig(**options)), callbacks=[Grads()],
        )  # fmt: skip
        trainer.train()
        return next(entry for entry in trainer.state.log_history if "loss" in entry)["loss"], found

    plain, wanted = first_step()
    for options in ({"r_drop": 4.0}, {"bregman": 4.0}):
        loss, found = first_step(**options)
        assert loss == pytest.approx(plain, rel=1e-6)
        assert set(found) == set(wanted)
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert first_step(smart=4.0, smart_radius=0.3, smart_noise=0.1)[0] > plain
