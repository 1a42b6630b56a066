"""Learning rates by layer, and gradual unfreezing."""

import pytest
import torch
from small_tasks import arguments, model_of, tasks, weights_of

from sbert_mini.training.config import FitterConfig
from sbert_mini.training.rates import depth, parameter_groups, set_trained, unfrozen_depth
from sbert_mini.training.trainer import MultiTaskTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_rates_fall_by_layer_and_layers_are_set_free_from_the_last(make_model):
    model = model_of(make_model)
    named = dict(model.named_parameters())
    layers = model[0].model.config.num_hidden_layers
    assert layers == 3
    groups = parameter_groups(named.items(), 1.0, 0.5, 0.01, layers)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(rates) == len(named)
    for name, parameter in named.items():
        rate, decay = rates[id(parameter)]
        wanted = 0.125 if "embeddings." in name else 0.25 if "layer.0." in name else 0.5 if "layer.1." in name else 1.0
        assert rate == wanted, name
        assert (decay == 0) == (name.endswith("bias") or "LayerNorm" in name)
    assert len(parameter_groups(named.items(), 1.0, 1.0, 0.01, layers)) == 2
    assert [unfrozen_depth(step, 3, layers) for step in (0, 2, 3, 5, 6, 100)] == [3, 3, 2, 2, 1, 0]
    assert set_trained(named, 1, layers)
    assert not set_trained(named, 1, layers)
    assert all(p.requires_grad == (depth(n, layers) >= 1) for n, p in named.items())


def test_gradual_unfreezing_moves_the_last_layer_first(make_model, tmp_path):
    from transformers import TrainerCallback

    model = model_of(make_model)
    seen = [weights_of(model)]

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **options):
            seen.append(weights_of(model))

    config = FitterConfig(batch_size=12, unfreeze_every=1)
    MultiTaskTrainer(
        model, arguments(tmp_path, max_steps=6, weight_decay=0.0), tasks(), config, callbacks=[Watch()]
    ).train()

    def moved(step, part):
        return any(not torch.equal(seen[step][k], seen[step - 1][k]) for k in seen[0] if part in k)

    for step in range(1, 7):
        assert moved(step, "layer.2.")
        assert moved(step, "layer.1.") == (step > 1)
        assert moved(step, "layer.0.") == (step > 2)
        assert moved(step, "word_embeddings") == (step > 3)
