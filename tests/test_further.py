"""The fitter's further rules: each against an oracle or a law, and through a recipe; several processes against one."""

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_error, run_here
from launch import Forked, fit_and_be_killed, one_thread  # noqa: F401
from safetensors.torch import load_file, save_file
from test_fitter import arguments, content, fitted, model_of, sentences, tasks, weights_of, workshop  # noqa: F401
from torch.nn import functional

from sbert_mini.encoder.adapters import ProjectedAttention
from sbert_mini.encoder.module import load
from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.training import processes
from sbert_mini.training.averaging import WeightAverage, soup
from sbert_mini.training.config import AverageConfig, FitterConfig, LoraConfig, RegularizationConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.r_drop import RDrop
from sbert_mini.training.rates import depth, parameter_groups, set_trained, unfrozen_depth
from sbert_mini.training.regularizers import Pass
from sbert_mini.training.smart import Bregman, Smart
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

# --- SMART, R-Drop ----------------------------------------------------------------------------------------------------


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


# --- averages ---------------------------------------------------------------------------------------------------------


def test_averages_are_the_closed_forms():
    layer = torch.nn.Linear(2, 1, bias=False)
    values = [torch.tensor([[float(i), -2.0 * i]]) for i in range(6)]
    with torch.no_grad():
        layer.weight.copy_(values[0])
    flat, warm = (WeightAverage({"m": layer}, "ema", 0.9, warm=w) for w in (False, True))
    mean = WeightAverage({"m": layer}, "checkpoints")
    expected, expected_warm = values[0].clone(), values[0].clone()
    for t, value in enumerate(values[1:], start=1):
        with torch.no_grad():
            layer.weight.copy_(value)
        for average in (flat, warm, mean):
            average.update()
        expected = 0.9 * expected + 0.1 * value
        d = min(0.9, (1 + t) / (10 + t))
        expected_warm = d * expected_warm + (1 - d) * value
    torch.testing.assert_close(flat.weights["m.weight"], expected)
    torch.testing.assert_close(warm.weights["m.weight"], expected_warm)
    torch.testing.assert_close(mean.weights["m.weight"], torch.stack(values[1:]).mean(0))
    with mean.in_place():
        torch.testing.assert_close(layer.weight.data, torch.stack(values[1:]).mean(0))
    torch.testing.assert_close(layer.weight.data, values[-1])
    for rule, decay in (("soup", 0.5), ("ema", 1.0)):
        with pytest.raises(UsageError):
            WeightAverage({"m": layer}, rule, decay)


def test_an_average_of_other_weights_is_refused(tmp_path):
    average = WeightAverage({"m": torch.nn.Linear(2, 1)})
    average.update()
    average.save(tmp_path / "a.safetensors")
    again = WeightAverage({"m": torch.nn.Linear(2, 1)})
    again.load(tmp_path / "a.safetensors")
    assert again.count == 1
    torch.testing.assert_close(again.weights, average.weights)
    with pytest.raises(CorruptModelError, match="other weights"):
        WeightAverage({"n": torch.nn.Linear(2, 1)}).load(tmp_path / "a.safetensors")
    with pytest.raises(CorruptModelError, match="cannot be read"):
        average.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("kind", ["ema", "checkpoints"])
def test_the_average_is_what_is_measured_and_saved(make_model, tmp_path, kind):
    model = model_of(make_model)
    args = arguments(
        tmp_path / "run", max_steps=6, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        load_best_model_at_end=True, metric_for_best_model="eval_mean", save_total_limit=2,
    )  # fmt: skip
    trainer = MultiTaskTrainer(model, args, tasks(), FitterConfig(batch_size=12, average=AverageConfig(kind, 0.9, 0.3)))
    trainer.train()
    best = trainer.state.best_global_step
    wanted = next(e for e in trainer.state.log_history if e["step"] == best and "eval_mean" in e)
    found = trainer.evaluate()  # with the weights that are in the model now
    assert found["eval_mean"] == pytest.approx(wanted["eval_mean"], abs=1e-6)
    assert found["eval_sts_pearson"] == pytest.approx(wanted["eval_sts_pearson"], abs=1e-6)
    kept = Path(trainer.state.best_model_checkpoint)
    raw = load(kept, device="cpu").state_dict()
    same = all(torch.equal(raw[k], t) for k, t in model.state_dict().items())
    assert not same, "the average must differ from the trained weights"


def test_checkpoints_are_averaged_at_evaluations_only(make_model, tmp_path):
    without_dev = [Task(t.config, t.train) for t in tasks()]
    with pytest.raises(UsageError, match="no task has dev examples"):
        MultiTaskTrainer(
            model_of(make_model), arguments(tmp_path), without_dev, FitterConfig(average=AverageConfig("checkpoints"))
        )


def test_a_soup_is_the_mean_and_of_one_shape(make_model, tmp_path):
    paths = [make_model(seed=seed) for seed in (1, 2, 3)]
    soup(paths, tmp_path / "soup")
    states = [load(p, device="cpu").state_dict() for p in paths]
    for name, tensor in load(tmp_path / "soup", device="cpu").state_dict().items():
        torch.testing.assert_close(tensor, torch.stack([s[name] for s in states]).mean(0))
    soup([paths[0], paths[0]], tmp_path / "same")
    same = load(tmp_path / "same", device="cpu").state_dict()
    (paths[0] / "lora").mkdir()
    save_file({"a": torch.zeros(1)}, paths[0] / "lora" / "adapter_model.safetensors")
    soup(paths, tmp_path / "without-updates")
    assert not (tmp_path / "without-updates" / "lora").exists()
    assert all(torch.equal(t, states[0][n]) for n, t in same.items())
    with pytest.raises(UsageError, match="exists already"):
        soup(paths, tmp_path / "soup")
    with pytest.raises(UsageError, match="at least two"):
        soup(paths[:1], tmp_path / "one")
    with pytest.raises(UsageError, match=r"differ|other names or shapes"):
        soup([paths[0], make_model(seed=1, num_hidden_layers=1)], tmp_path / "other")


def test_the_soup_command(make_model, tmp_path):
    paths = [str(make_model(seed=seed)) for seed in (1, 2)]
    done = run_here(tmp_path, "soup", *paths, "-o", tmp_path / "soup")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "soup") in done.stderr
    assert run_here(tmp_path, "encode", "a cat", "-m", tmp_path / "soup").returncode == 0
    one_error(run_here(tmp_path, "soup", paths[0], "-o", tmp_path / "x"), 2, "at least two models")
    one_error(run_here(tmp_path, "soup", paths[0], tmp_path / "gone", "-o", tmp_path / "x"), 1, "gone")


# --- rates ------------------------------------------------------------------------------------------------------------


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


# --- LoRA -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # between peft and transformers
def test_lora_merged_and_unmerged_are_one_function_here_and_in_peft(make_model, tmp_path):
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer
    from transformers import BertModel

    path = make_model(seed=4)
    model = load(path, device="cpu")
    texts = sentences(6, 3)
    before = model.encode(texts)
    model[0].model.requires_grad_(True)
    trainer = MultiTaskTrainer(
        model, arguments(tmp_path / "run", max_steps=8, learning_rate=1e-2), tasks(),
        FitterConfig(batch_size=12, lora=LoraConfig(4, 8.0, 0.0, ["query", "value", "dense"])),
    )  # fmt: skip
    np.testing.assert_allclose(model.encode(texts), before, atol=1e-6)  # B is 0 at first
    plain = {n for n, p in model.named_parameters() if p.requires_grad and "lora" not in n}
    assert plain == set()
    trainer.train()
    after = model.encode(texts)
    assert np.abs(after - before).max() > 1e-3
    trainer.save_model(str(tmp_path / "out"))
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts), after, atol=1e-5)
    np.testing.assert_allclose(load(tmp_path / "out", device="cpu").encode(texts), after, atol=1e-5)
    unmerged = PeftModel.from_pretrained(BertModel.from_pretrained(path), str(tmp_path / "out" / "lora")).eval()
    features = model[0].preprocess(texts)
    with torch.no_grad():
        theirs = unmerged(**{k: features[k] for k in ("input_ids", "attention_mask", "token_type_ids")})[0]
        ours = model[0](features)["token_embeddings"]
    mask = features["attention_mask"].bool()
    torch.testing.assert_close(theirs[mask], ours[mask], atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
def test_plain_sentence_transformers_adds_lora_to_what_we_save(make_model, tmp_path):
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer

    load(make_model(seed=4), device="cpu").save(str(tmp_path / "saved"))
    model = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    model.add_adapter(LoraConfig(r=2, target_modules=["query", "value"], task_type="FEATURE_EXTRACTION"))
    assert any("lora_A" in name for name, p in model.named_parameters() if p.requires_grad)
    assert model.encode(["the cat"]).shape == (1, model.get_embedding_dimension())


def test_lora_refuses():
    for options, text in (
        ({"rank": 0}, "lora.rank must be at least 1; found 0"),
        ({"targets": ["keys"]}, "lora.targets must be some of query, key, value, dense; found 'keys'"),
        ({"targets": []}, "found none"),
    ):
        with pytest.raises(UsageError, match=text):
            LoraConfig(**options)
    with pytest.raises(UsageError, match="with LoRA the encoder's own weights stay frozen"):
        FitterConfig(lora=LoraConfig(), unfreeze_every=3)
    with pytest.raises(UsageError, match="lora needs an encoder that is trained, and it is frozen"):
        FitterConfig(lora=LoraConfig(), encoder="frozen")


# --- projected attention ----------------------------------------------------------------------------------------------


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


# --- SimCSE, tasks that are only measured ------------------------------------------------------------------------------


def test_unsupervised_simcse_is_the_ranking_loss_of_two_dropout_masks(make_model, tmp_path):
    texts = Examples(tuple((s,) for s in sentences(30, 9)), counts={"read": 30})
    task = Task(TaskConfig("plain", "single", "multiple-negatives-ranking"), texts)
    measured = Task(TaskConfig("sts", "siamese", "cosine-mse", high=5.0), Examples(()), tasks()[2].dev)
    model = model_of(make_model, dropout=0.3)
    trainer = MultiTaskTrainer(model, arguments(tmp_path, max_steps=2), [task, measured], FitterConfig(batch_size=6))
    batch = next(iter(trainer.get_train_dataloader()))
    model.train()
    torch.manual_seed(7)
    found = trainer.loss_of(model, trainer.tasks[0], batch["tasks"][0])
    torch.manual_seed(7)
    u, v = model(batch["tasks"][0]["features"][0])["sentence_embedding"].split(6)
    assert (u - v).abs().max() > 1e-3, "the two masks must differ"
    scores = functional.normalize(u, dim=-1) @ functional.normalize(v, dim=-1).T * 20
    torch.testing.assert_close(found, functional.cross_entropy(scores, torch.arange(6)))
    trainer.train()
    assert "eval_sts_pearson" in trainer.evaluate()
    with pytest.raises(UsageError, match="no dev figure"):
        Task(task.config, texts, texts)
    with pytest.raises(UsageError, match="only a task without one can be measured alone"):
        Task(TaskConfig("c", "single", "cross-entropy"), Examples(()), tasks()[0].dev)
    with pytest.raises(UsageError, match="no task has training data"):
        MultiTaskTrainer(model, arguments(tmp_path), [measured])


# --- through recipes --------------------------------------------------------------------------------------------------


def changed(folder, *pairs):
    text = (folder / "recipe.toml").read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    (folder / "recipe.toml").write_text(text)


TABLES = {
    "smart": "[regularization]\nsmart = 1.0\nbregman = 1.0\nsmart_radius = 0.01\n"
    '[average]\nkind = "checkpoints"\nstart = 0.0\n',
    "ema": '[average]\nkind = "ema"\ndecay = 0.9\n[regularization]\nr_drop = 1.0\n',
    "lora": "[lora]\nrank = 2\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_killed_and_resumed_with_each_rule_a_run_ends_in_the_same_bytes(workshop, name):  # noqa: F811
    changed(workshop, ("steps = 60", "steps = 8"), ("[model]", TABLES[name] + "[model]"))
    text = (workshop / "recipe.toml").read_text()
    every = next(line for line in text.splitlines() if line.startswith("every"))
    changed(workshop, (every, "every = 4"))
    fitted(workshop, "whole")
    Forked(fit_and_be_killed, workshop / "killed", 4, folder=workshop).end(-signal.SIGKILL)
    assert fitted(workshop, "killed", resume=True).resumed_from == 4
    first, second = content(workshop / "whole"), content(workshop / "killed")
    assert set(first) == set(second)
    assert [n for n in first if first[n] != second[n] and n != "README.md"] == []


PHASES = '[[phase]]\nencoder = "frozen"\nsteps = 3\n[[phase]]\nsteps = 3\nlearning_rate = 1e-4\n'


def test_two_phases_train_heads_first_and_go_on_where_they_were_killed(workshop):  # noqa: F811
    changed(workshop, ("steps = 60", ""))
    (workshop / "recipe.toml").write_text((workshop / "recipe.toml").read_text() + "\n" + PHASES)
    said = []
    fitted(workshop, "whole", on_progress=said.append)
    assert any("phase 1 of 2: encoder frozen" in line for line in said)
    logs = [workshop / "whole.run" / f"phase-{n}" / "log.jsonl" for n in (1, 2)]
    assert all(log.is_file() for log in logs)
    assert not list((workshop / "whole.run").rglob("model*"))
    Forked(fit_and_be_killed, workshop / "killed", None, "phase 2 of 2", folder=workshop).end(-signal.SIGKILL)
    with pytest.raises(UsageError, match="phase-1/model of an earlier run"):
        fitted(workshop, "killed")
    assert fitted(workshop, "killed", resume=True).resumed_from == 3
    first, second = content(workshop / "whole"), content(workshop / "killed")
    assert [n for n in first if first[n] != second[n] and n != "README.md"] == []


def test_a_phase_begins_with_the_heads_of_the_one_before(workshop):  # noqa: F811
    """At rates of 0 the second phase leaves everything as it found it."""
    changed(workshop, ("steps = 60", ""))
    still = PHASES.replace("learning_rate = 1e-4", "learning_rate = 0.0\nhead_learning_rate = 0.0")
    (workshop / "recipe.toml").write_text((workshop / "recipe.toml").read_text() + "\n" + still)

    def stop(line):
        if line.startswith("phase 2 of 2"):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fitted(workshop, "killed", on_progress=stop)
    first = content(workshop / "killed.run" / "phase-1" / "model")
    fitted(workshop, "killed", resume=True)
    second = content(workshop / "killed")
    heads = [name for name in first if name.startswith("heads/") and name.endswith(".safetensors")]
    assert len(heads) == 2
    assert all(first[name] == second[name] for name in heads)


def test_dry_run_tells_the_cost_of_each_phase(workshop):  # noqa: F811
    changed(workshop, ("steps = 60", ""))
    (workshop / "recipe.toml").write_text((workshop / "recipe.toml").read_text() + "\n" + PHASES)
    done = run_here(workshop, "train", "recipe.toml", "--threads", 1, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [p["encoder"] for p in found["phases"]] == ["frozen", "trained"]
    assert found["steps"] == 6
    assert all(p["seconds_a_step"] > 0 and p["peak_bytes"] > 1e8 for p in found["phases"])
    said = run_here(workshop, "train", "recipe.toml", "--threads", 1, "--dry-run").stdout
    assert "phase 2, encoder trained: 3 steps of" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[model]", '[average]\nkind = "mean"\n[model]', "average.kind must be one of none, ema, checkpoints"),
        ("[model]", '[lora]\ntargets = ["keys"]\n[model]', "lora.targets must be some of query, key, value, dense;"),
        ("[model]", '[regularization]\ntasks = ["moot"]\n[model]', "there is no task 'moot' (did you mean mood?)"),
        ("[model]", '[lora]\n[model]\nencoder = "frozen"', "lora needs an encoder that is trained, and it is frozen"),
        (
            'steps = 60\nbatch_size = 24\nschedule = "dynamic"\nfloor = 2\nlog_every = 3\n',
            "batch_size = 24\n[lora]\n[[phase]]\nsteps = 3\n[[phase]]\nsteps = 3\n",
            "[lora]: one phase at most may train the encoder"),
        ("[model]", "[[phase]]\nsteps = 3\n[model]", "train.steps and train.epochs are the phases' own"),
        (
            'steps = 60\nbatch_size = 24\nschedule = "dynamic"\nfloor = 2\nlog_every = 3\n',
            'batch_size = 24\n[[phase]]\nencoder = "frozen"\n', "phase.steps or phase.epochs is needed"),
    ],
)  # fmt: skip
def test_mistakes_in_the_further_tables_are_named(workshop, old, new, said):  # noqa: F811
    changed(workshop, (old, new))
    one_error(run_here(workshop, "train", "recipe.toml", "--dry-run", "-q"), 2, "recipe.toml, line", said)


# --- several processes ------------------------------------------------------------------------------------------------


def train_in_processes(folder, start, kinds, kill_at=None, checkpoint=None):
    """What one of the processes does: train each kind, and write its weights; or be killed when it has saved a step."""
    import torch.distributed as dist
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_save(self, args, state, control, **options):
            if state.global_step == kill_at:
                processes.wait()  # until the others' part of the checkpoint is there, too
                os.kill(os.getpid(), signal.SIGKILL)

    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", world_size=world, rank=rank)
    for kind in kinds:
        loss = kind if kind in ("cosent", "cached-multiple-negatives-ranking") else "multiple-negatives-ranking"
        more = tasks(value=0.5)
        config = TaskConfig("rank", "siamese", loss, high=5.0, positive=0.0, mini_batch_size=2)
        given = [Task(t.config, t.train, None, t.margin) for t in more] + [Task(config, more[2].train)]
        torch.manual_seed(rank)  # heads must be agreed upon, whatever each process draws
        resumed = "resumed" in kind
        dtype = torch.float32 if resumed else torch.float64  # checkpoints are read in single precision
        model = load(start, device="cpu").to(dtype)
        args = arguments(
            folder / kind / f"run{world}", max_steps=4 if resumed else 2, save_steps=2,
            save_strategy="steps" if resumed else "no",
            ddp_backend="gloo" if world > 1 else None, gradient_accumulation_steps=2 if kind == "accumulated" else 1,
            save_total_limit=2, max_grad_norm=0.05,
        )  # fmt: skip
        fitter = FitterConfig(batch_size=16, surgery=None if kind == "none" else "pcgrad")
        trainer = MultiTaskTrainer(model, args, given, fitter, callbacks=[Kill()])
        if rank == 0:
            torch.manual_seed(0)
            for objective in trainer.objectives.values():
                for parameter in objective.parameters():
                    torch.nn.init.normal_(parameter, std=0.02)
        for objective in trainer.objectives.values():
            objective.to(dtype)
        trainer.train(resume_from_checkpoint=checkpoint)
        heads = {f"{n}.{k}": t for n, o in trainer.objectives.items() for k, t in o.state_dict().items()}
        state = {**model.state_dict(), **heads, "margin": torch.tensor(trainer.objectives["sts"].margin.value)}
        save_file({n: t.contiguous() for n, t in state.items()}, folder / kind / f"{world}-{rank}.safetensors")
    processes.leave()


def run_processes(folder, start, kinds, world, *more, ends=0):
    """Train each kind, one after the other in one launch; return kind -> each process' weights."""
    (folder / "store").unlink(missing_ok=True)
    for kind in kinds:
        (folder / kind).mkdir(exist_ok=True)
    own = {
        "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "GLOO_SOCKET_IFNAME": "lo",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0",
    }  # fmt: skip
    running = [
        Forked(
            train_in_processes, folder, start, kinds, *more,
            folder=folder, name=f"said-{rank}", env={**own, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]  # fmt: skip
    for process in running:
        process.end(ends)
    if ends:
        return None
    return {kind: [load_file(folder / kind / f"{world}-{rank}.safetensors") for rank in range(world)] for kind in kinds}


KINDS = ("pcgrad", "cosent", "none", "accumulated", "cached-multiple-negatives-ranking")


def test_two_processes_take_the_steps_of_one(make_model, tmp_path):
    """Each kind by one process, then by two: one launch of each for all kinds, as starting costs more than training."""
    start = make_model(seed=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    alone, together = (run_processes(tmp_path, start, KINDS, world) for world in (1, 2))
    begun = load(start, device="cpu").double().state_dict()
    for kind in KINDS:
        (one,), (first, second) = alone[kind], together[kind]
        assert max(float((one[n] - t).abs().max()) for n, t in begun.items()) > 1e-3, f"{kind}: it must have moved"
        for name, tensor in one.items():
            assert torch.equal(first[name], second[name]), f"{kind}, {name}: the processes are out of step"
            torch.testing.assert_close(first[name], tensor, rtol=0, atol=1e-6, msg=f"{kind}, {name}")


def test_two_processes_that_were_killed_resume_where_they_were(make_model, tmp_path):
    """With dropout, of which each process has its own masks."""
    start = make_model(seed=2, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    straight = run_processes(tmp_path, start, ["resumed-never"], 2)["resumed-never"]
    run_processes(tmp_path, start, ["resumed"], 2, 2, ends=-signal.SIGKILL)
    half = tmp_path / "resumed" / "run2" / "checkpoint-2"
    again = run_processes(tmp_path, start, ["resumed"], 2, None, str(half))["resumed"]
    for one, other in zip(straight, again, strict=True):
        assert all(torch.equal(other[name], tensor) for name, tensor in one.items())


def test_a_batch_is_shared_by_processes_in_whole_examples():
    from sbert_mini.training.schedule import Schedule

    schedule = Schedule("proportional", {"a": 900, "b": 100}, 20, 1, floor=3, unit=4)
    assert schedule.sizes_at(0) == (16, 4)
    schedule = Schedule("dynamic", {"a": 9, "b": 9, "c": 9}, 36, 1, floor=1, unit=2)
    schedule.reallocate({"a": 0.9, "b": 0.05, "c": 0.05}, 4)
    assert sum(schedule.sizes_at(4)) == 36
    assert all(size % 2 == 0 for size in schedule.sizes_at(4))


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_fsdp_and_deepspeed_are_refused_in_one_line(workshop, monkeypatch, variable):  # noqa: F811
    monkeypatch.setenv(variable, "true")
    one_error(run_here(workshop, "train", "recipe.toml", "-q"), 2, variable, "torchrun alone")
