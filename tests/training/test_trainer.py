"""A step of the fitter against plain torch; resuming; what it refuses."""

import numpy as np
import pytest
import torch
from oracles import algorithm_1
from small_tasks import WORDS, arguments, model_of, sentences, tasks, weights_of
from torch.nn import functional

from sbert_mini.encoder.module import load
from sbert_mini.errors import UsageError
from sbert_mini.model.choices import JOINED
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.surgery import projection_orders
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("optimizer", ["adamw", "torch-adamw"])
def test_a_step_takes_algorithm_1_on_plainly_computed_gradients(make_model, tmp_path, accumulate, optimizer):
    from transformers import TrainerCallback

    class Grads(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **options):
            for module, into in ((model, encoder_found), *((o, head_found) for o in trainer.objectives.values())):
                for name, p in module.named_parameters():
                    if p.grad is not None:
                        key = name if module is model else f"{module.config.name}.{name}"
                        into[key] = (p.grad.to_dense() if p.grad.is_sparse else p.grad).clone()

    encoder_found, head_found = {}, {}
    model, reference = model_of(make_model), model_of(make_model)
    given = tasks(joined="pair+siamese" if accumulate == 2 else "pair")
    args = arguments(tmp_path, max_steps=1, gradient_accumulation_steps=accumulate, max_grad_norm=0)
    config = FitterConfig(batch_size=12, optimizer=optimizer)
    torch.manual_seed(0)
    trainer = MultiTaskTrainer(model, args, given, config, callbacks=[Grads()])
    heads = {n: {k: v.clone() for k, v in o.state_dict().items()} for n, o in trainer.objectives.items()}
    trainer.train()

    # The same again by hand: the same draws, a forward pass a column, autograd.grad, projection of vectors.
    other = MultiTaskTrainer(reference, args, given, config)
    for name, state in heads.items():
        other.objectives[name].load_state_dict(state)
    shared = dict(reference.named_parameters())
    head_parameters = {f"{n}.{k}": p for n, o in other.objectives.items() for k, p in o.named_parameters()}
    loader = other.get_train_dataloader()
    batches = list(loader.batch_sampler)[:accumulate]
    rows, head_gradients = [], {k: torch.zeros_like(p) for k, p in head_parameters.items()}
    for number, task in enumerate(given):
        loss = 0.0
        for places in batches:
            chosen = [i for t, i in places if t == number]
            texts = [task.train.texts[i] for i in chosen]
            inputs = [texts] if task.config.structure in JOINED else []
            inputs += [list(c) for c in zip(*texts, strict=True)] if task.config.structure != "pair" else []
            vectors = [reference(reference[0].preprocess(column))["sentence_embedding"] for column in inputs]
            targets = task.targets(Examples(tuple(texts), tuple(task.train.labels[i] for i in chosen)))
            if task.config.loss == "cross-entropy":
                place = {label: n for n, label in enumerate(task.labels)}
                targets = torch.tensor([place[task.train.labels[i]] for i in chosen])
            loss = loss + other.objectives[task.config.name].eval()(vectors, targets) / accumulate
        own = list(other.objectives[task.config.name].named_parameters())
        found = torch.autograd.grad(loss, [*shared.values(), *(p for _, p in own)], allow_unused=True)
        rows.append(np.concatenate([(g if g is not None else torch.zeros_like(p)).flatten().numpy()
                                    for g, p in zip(found, shared.values(), strict=False)]))  # fmt: skip
        for (name, _), gradient in zip(own, found[len(shared) :], strict=True):
            head_gradients[f"{task.config.name}.{name}"] += gradient
    step = algorithm_1([r.astype(np.float64) for r in rows], projection_orders(3, args.seed, 0))
    assert min(r @ q for r in rows for q in rows) < 0, "the test needs a conflict"
    parts = torch.from_numpy(step).float().split([p.numel() for p in shared.values()])
    for (name, parameter), part in zip(shared.items(), parts, strict=True):
        found = encoder_found.get(name, torch.zeros_like(parameter))
        torch.testing.assert_close(found, part.view(parameter.shape), rtol=1e-4, atol=1e-5, msg=name)
    assert set(head_found) == set(head_gradients) != set()
    for name, gradient in head_gradients.items():
        torch.testing.assert_close(head_found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_clipping_counts_encoder_and_heads_together(make_model, tmp_path):
    model = model_of(make_model)
    trainer = MultiTaskTrainer(model, arguments(tmp_path, max_grad_norm=0.01), tasks(), FitterConfig(batch_size=12))
    trainer.get_train_dataloader()
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    trainer.accelerator.gradient_state._set_sync_gradients(True)
    trainer.training_step(model, next(iter(trainer.get_train_dataloader())))
    parameters = [p for m in (model, *trainer.objectives.values()) for p in m.parameters() if p.grad is not None]
    assert any(p.grad.is_sparse for p in parameters)

    def norm():
        return (
            torch.cat([(p.grad.to_dense() if p.grad.is_sparse else p.grad).flatten() for p in parameters]).norm().item()
        )

    before = norm()
    assert trainer.clip_gradients() == pytest.approx(before, rel=1e-5)
    assert norm() == pytest.approx(0.01, rel=1e-4)


def test_cached_ranking_gives_the_gradients_of_the_plain_one(make_model, tmp_path):
    pairs = tuple(
        (f"{a} {WORDS[i % 12]}", b) for i, (a, b) in enumerate(zip(sentences(30, 7), sentences(30, 8), strict=True))
    )
    grams = []
    for loss in ("multiple-negatives-ranking", "cached-multiple-negatives-ranking"):
        given = [tasks()[0], Task(TaskConfig("rank", "siamese", loss, mini_batch_size=3), Examples(pairs))]
        model = model_of(make_model)
        torch.manual_seed(0)
        trainer = MultiTaskTrainer(model, arguments(tmp_path), given, FitterConfig(batch_size=16))
        loader = trainer.get_train_dataloader()
        trainer.create_optimizer()
        trainer.current_gradient_accumulation_steps = 1
        trainer.accelerator.gradient_state._set_sync_gradients(False)
        trainer.training_step(model, next(iter(loader)))
        grams.append(trainer._buffer.gram())
    torch.testing.assert_close(grams[0], grams[1], rtol=1e-4, atol=1e-6)


def test_bf16_rows_point_where_fp32s_do(make_model, tmp_path):
    rows = []
    for bf16 in (False, True):
        model = model_of(make_model)
        torch.manual_seed(0)
        config = FitterConfig(batch_size=12, optimizer="torch-adamw")
        trainer = MultiTaskTrainer(model, arguments(tmp_path, bf16=bf16, max_steps=1), tasks(), config)
        captured = {}
        trainer.surgeon.rule = lambda gram: (captured.update(flat=trainer._buffer._flat.clone()), torch.ones(3))[1]  # noqa: B023
        trainer.train()
        rows.append(captured["flat"])
    cosine = torch.nn.functional.cosine_similarity(rows[0], rows[1], dim=1)
    assert rows[1].dtype == torch.float32
    assert cosine.min() > 0.99


def test_a_frozen_encoder_stays_and_its_heads_learn(make_model, tmp_path):
    model = model_of(make_model, dropout=0.1)
    before = weights_of(model)
    texts = sentences(60, 1)
    labels = tuple("cat" if "cat" in text else "none" for text in texts)
    given = [Task(TaskConfig("mood", "single", "cross-entropy"), Examples(tuple((t,) for t in texts), labels))]
    args = arguments(tmp_path, max_steps=60, learning_rate=1e-2)
    trainer = MultiTaskTrainer(model, args, given, FitterConfig(batch_size=20, encoder="frozen"))
    head = {k: v.clone() for k, v in trainer.objectives["mood"].state_dict().items()}
    trainer.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not torch.equal(head["head.output.weight"], trainer.objectives["mood"].state_dict()["head.output.weight"])
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_a_loss_that_is_no_number_stops_the_run_and_long_texts_are_told(make_model, tmp_path, caplog):
    from sbert_mini.errors import TrainingError

    long = Examples(((" ".join(WORDS * 9),), ("the cat",)), ("a", "b"))
    trainer = MultiTaskTrainer(
        model_of(make_model),
        arguments(tmp_path, learning_rate=1e30, max_grad_norm=0, max_steps=50),
        [Task(TaskConfig("mood", "single", "cross-entropy"), long)],
        FitterConfig(batch_size=4),
    )
    with pytest.raises(
        TrainingError, match=r"the loss of the task 'mood' is (nan|inf) at step \d+: lower the learning rate"
    ):
        trainer.train()
    assert "task mood: 1 training texts are longer than 31 tokens, and are cut" in caplog.text


def test_what_the_fitter_refuses(make_model, tmp_path):
    model, args = model_of(make_model), arguments(tmp_path)
    one = tasks()[0]
    with pytest.raises(UsageError, match="at least one task"):
        MultiTaskTrainer(model, args, [])
    with pytest.raises(UsageError, match="two tasks are called 'mood'"):
        MultiTaskTrainer(model, args, [one, one])
    with pytest.raises(UsageError, match="encoder must be one of trained, frozen; found 'melted'"):
        FitterConfig(encoder="melted")
    with pytest.raises(UsageError, match="12 examples cannot hold floor = 5 of each of 3 tasks"):
        MultiTaskTrainer(model, args, tasks(), FitterConfig(batch_size=12, floor=5))
    ranking = Task(TaskConfig("r", "siamese", "cosent"), Examples((("a", "b"),), (1.0,)))
    with pytest.raises(UsageError, match="the encoder is frozen, and the loss cosent has no head to train"):
        MultiTaskTrainer(model, args, [ranking], FitterConfig(batch_size=4, encoder="frozen"))


def test_accumulated_and_resumed_a_run_goes_on_exactly(make_model, tmp_path):
    """Epochs, two batches a step, a margin that moves by epochs, dropout: stopped at a step and gone on with."""

    def trainer(folder, **options):
        settings = {
            "gradient_accumulation_steps": 2,
            "save_strategy": "steps",
            "save_steps": 3,
            "max_steps": 11,
            **options,
        }
        torch.manual_seed(0)
        config = FitterConfig(batch_size=12, schedule="annealed", surgery="gradvac", steps_per_epoch=5)
        given = tasks(value=0.5, every="epoch")
        return MultiTaskTrainer(model_of(make_model, dropout=0.1), arguments(folder, **settings), given, config)

    whole = trainer(tmp_path / "whole")
    whole.train()
    first = trainer(tmp_path / "part")
    first.train()
    again = trainer(tmp_path / "again")
    again.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-6"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    for name, objective in whole.objectives.items():
        for key, tensor in objective.state_dict().items():
            assert torch.equal(tensor, again.objectives[name].state_dict()[key]), (name, key)
    assert whole.objectives["sts"].margin.value == again.objectives["sts"].margin.value
    assert whole.schedule.history == again.schedule.history
    assert torch.equal(whole.surgeon._vaccine.targets, again.surgeon._vaccine.targets)
    files = {p.name for p in (tmp_path / "part" / "checkpoint-6").rglob("*") if p.is_file()}
    assert not {name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))}


def test_columns_of_other_lengths_go_through_the_encoder_apart_to_the_same_loss(make_model, tmp_path):
    """Titles and articles: a column a pass is the same loss, of fewer tokens."""
    pairs = tuple((title, " ".join(sentences(4, seed=i))) for i, title in enumerate(sentences(8, 1)))
    task = Task(TaskConfig("titles", "siamese", "multiple-negatives-ranking"), Examples(pairs))
    losses, tokens = [], []
    for least in (0.8, 0.0):
        model = load(make_model(seed=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), device="cpu")
        trainer = MultiTaskTrainer(model, arguments(tmp_path, max_steps=1), [task], FitterConfig(batch_size=8))
        loader = trainer.get_train_dataloader()
        loader.collate_fn.like_lengths = least
        inputs = next(iter(loader))
        passes = inputs["tasks"][0]["features"]
        tokens.append([features["input_ids"].numel() for features in passes])
        losses.append(float(trainer.compute_loss(model, inputs).detach()))
    assert [len(held) for held in tokens] == [2, 1]
    assert sum(tokens[0]) < 0.8 * tokens[1][0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


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
