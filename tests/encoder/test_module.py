"""MiniBert inside sentence-transformers: the same vectors, a directory that needs nothing of ours, and training."""

import copy
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from launch import FORKED, Forked, encode_without_ours
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses

import sbert_mini
from sbert_mini.encoder.module import MiniBertModule, MiniSentenceTransformer
from sbert_mini.errors import CorruptModelError, UnsupportedModelError, UsageError
from sbert_mini.model.layout import read_layout

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [
    "A cat sleeps.",
    "naïve café in São Paulo",
    "word " * 400,
    "?",
    "多言語 text, mixed",
    "The [SEP] and the [CLS] are ordinary words here.",
]
PLAIN = [text for text in TEXTS if "[" not in text]


def cosine(a, b):
    return np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def encode_in_a_plain_process(path, texts, lora_rank=0):
    """Encode in a process in which sbert_mini cannot be imported."""
    output = path.parent / "plain.npy"
    Forked(encode_without_ours, path, texts, output, lora_rank, folder=path.parent).end()
    return np.load(output)


@pytest.fixture(scope="module")
def model(minilm):
    return sbert_mini.load(minilm)


def test_real_weights_embed_as_sentence_transformers_does(minilm, model):
    theirs = SentenceTransformer(str(minilm), local_files_only=True)
    assert isinstance(model, SentenceTransformer)
    assert model.max_seq_length == theirs.max_seq_length == 256
    assert model.get_embedding_dimension() == theirs.get_embedding_dimension() == 384
    assert (1 - cosine(model.encode(PLAIN), theirs.encode(PLAIN))).max() <= 1e-6
    tokens = model.encode(TEXTS[0], output_value="token_embeddings")
    torch.testing.assert_close(tokens, theirs.encode(TEXTS[0], output_value="token_embeddings"), atol=1e-5, rtol=0)


def test_a_published_directory_differs_only_for_literal_special_tokens(minilm, model):
    theirs = SentenceTransformer(str(minilm), local_files_only=True)
    assert cosine(model.encode(TEXTS[-1:]), theirs.encode(TEXTS[-1:]))[0] < 0.999


def test_a_saved_directory_needs_nothing_of_ours(model, tmp_path):
    model.save(str(tmp_path / "saved"))
    types = [m["type"] for m in json.loads((tmp_path / "saved" / "modules.json").read_text())]
    assert all(t.startswith("sentence_transformers.") for t in types)
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert settings["split_special_tokens"] is True
    ours = model.encode(TEXTS)
    assert (1 - cosine(encode_in_a_plain_process(tmp_path / "saved", TEXTS), ours)).max() <= 1e-6
    np.testing.assert_array_equal(sbert_mini.load(tmp_path / "saved").encode(TEXTS), ours)


def test_a_stock_model_built_on_our_module_saves_the_standard_layout_too(minilm, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Pooling

    stock = SentenceTransformer(modules=[MiniBertModule.load(str(minilm)), Pooling(384, "mean")])
    assert isinstance(stock, MiniSentenceTransformer)
    stock.save_pretrained(str(tmp_path / "saved"))
    plain = encode_in_a_plain_process(tmp_path / "saved", TEXTS)
    assert (1 - cosine(plain, stock.encode(TEXTS))).max() <= 1e-6


def test_lora_can_be_added_to_a_saved_directory(model, tmp_path):
    model.save(str(tmp_path / "saved"))
    adapted = encode_in_a_plain_process(tmp_path / "saved", TEXTS[:2], lora_rank=4)
    assert (1 - cosine(adapted, model.encode(TEXTS[:2]))).max() <= 1e-6  # a fresh adapter changes nothing yet


def test_prompts_queries_and_truncated_dimensions(make_model):
    path = make_model(modules=[{"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": "mean"}])
    settings = {"prompts": {"query": "cat: ", "document": "dog: "}, "default_prompt_name": None}
    (path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    ours, theirs = sbert_mini.load(path), SentenceTransformer(str(path), local_files_only=True)
    text = ["the red tree"]
    for name in ("encode", "encode_query", "encode_document"):
        a, b = getattr(ours, name)(text), getattr(theirs, name)(text)
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_array_equal(ours.encode_query(text), ours.encode(["cat: the red tree"]))
    assert not np.allclose(ours.encode_query(text), ours.encode(text))
    np.testing.assert_allclose(ours.encode(text, truncate_dim=5), theirs.encode(text)[:, :5], atol=1e-6)


def test_a_prompt_can_be_left_out_of_the_pooling(make_model):
    pooling = {"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": "mean", "include_prompt": False}
    path = make_model(modules=[pooling])
    ours, theirs = sbert_mini.load(path), SentenceTransformer(str(path), local_files_only=True)
    with_prompt = ours.encode(["a red house"], prompt="the dog ")
    np.testing.assert_allclose(with_prompt, theirs.encode(["a red house"], prompt="the dog "), atol=1e-6)
    assert not np.allclose(with_prompt, ours.encode(["the dog a red house"]))


def test_max_seq_length_can_be_set(make_model):
    model = sbert_mini.load(make_model())
    assert model.max_seq_length == 31
    model.max_seq_length = 5
    assert model.preprocess(["the cat runs the cat runs"])["input_ids"].shape == (1, 5)
    for wrong in (38, 3, None):
        with pytest.raises(UsageError, match="from 4 to 37"):
            model.max_seq_length = wrong


def test_lower_casing_asked_for_by_the_directory_is_done(make_model):
    path = make_model()
    settings = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}))
    cased = sbert_mini.load(path).encode(["THE Cat"])
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 31, "do_lower_case": True}))
    lowered = sbert_mini.load(path)
    assert not np.allclose(lowered.encode(["THE Cat"]), cased, atol=1e-3)
    np.testing.assert_array_equal(lowered.encode(["THE Cat"]), lowered.encode(["the cat"]))
    lowered.save(str(path / "saved"))
    plain = SentenceTransformer(str(path / "saved"), local_files_only=True)
    np.testing.assert_allclose(plain.encode(["THE Cat"]), lowered.encode(["THE Cat"]), atol=1e-6)


def test_pairs_become_one_sequence_with_segments(make_model):
    features = sbert_mini.load(make_model()).preprocess([("the cat", "a dog runs"), ("a", "[SEP]")])
    assert features["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 0]]
    separator = features["input_ids"][0][-1]
    assert (features["input_ids"] == separator).sum(1).tolist() == [2, 2]


@pytest.mark.parametrize("shape", ["siamese", "triplet"])
def test_training_moves_the_encoder_the_way_the_loss_asks(make_model, shape):
    torch.manual_seed(0)
    model = sbert_mini.load(make_model()).train()
    texts = ["the cat sleeps", "a dog runs", "bread dough rises"]
    batch = [model.preprocess([text]) for text in (texts if shape == "triplet" else texts[:2])]
    loss = losses.TripletLoss(model) if shape == "triplet" else losses.CosineSimilarityLoss(model)
    labels = None if shape == "triplet" else torch.tensor([1.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss(batch, labels)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert np.mean(values[-5:]) < np.mean(values[:5])


def test_the_stock_trainer_trains_saves_and_resumes(make_model, tmp_path):
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    rows = [("the cat", "a cat"), ("red bread", "the dough")] * 4
    data = Dataset.from_dict({"a": [r[0] for r in rows], "b": [r[1] for r in rows]})
    start = make_model()

    def train(steps, resume):
        model = sbert_mini.load(start)
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / "run"), max_steps=steps, per_device_train_batch_size=2, save_steps=2,
            learning_rate=1e-2, report_to=[], disable_tqdm=True, use_cpu=True, seed=3,
        )  # fmt: skip
        loss = losses.MultipleNegativesRankingLoss(model)
        SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train(
            resume_from_checkpoint=resume
        )
        return model

    before = sbert_mini.load(start).encode(["the cat"])
    half = train(2, None)
    assert not np.allclose(half.encode(["the cat"]), before, atol=1e-3)
    saved = tmp_path / "run" / "checkpoint-2"
    np.testing.assert_allclose(
        SentenceTransformer(str(saved), local_files_only=True).encode(["the cat"]), half.encode(["the cat"]), atol=1e-6
    )
    train(4, str(saved))
    assert (tmp_path / "run" / "checkpoint-4").is_dir()


@pytest.mark.long
def test_a_spawn_pool_gives_the_same_vectors(make_model):
    model = sbert_mini.load(make_model())
    texts = ["the cat", "a dog runs", "red [SEP] bread", "bread dough rises ."]
    np.testing.assert_array_equal(copy.deepcopy(model).encode(texts), model.encode(texts))
    with ProcessPoolExecutor(1, FORKED) as other:  # a process that has nothing of ours, as a spawned one
        np.testing.assert_array_equal(other.submit(model.encode, texts).result(), model.encode(texts))
    pool = model.start_multi_process_pool(["cpu"])  # a second one would take as long again to start
    try:
        np.testing.assert_allclose(model.encode(texts, pool=pool, chunk_size=3), model.encode(texts), atol=1e-6)
    finally:
        model.stop_multi_process_pool(pool)


def test_no_pickle_is_written_and_no_other_backend_is_pretended(make_model, tmp_path):
    path = make_model()
    with pytest.raises(UsageError, match="pickle"):
        sbert_mini.load(path).save(str(tmp_path / "out"), safe_serialization=False)
    with pytest.raises(UsageError, match="onnx"):
        MiniBertModule.load(str(path), backend="onnx")


def test_a_dense_module_that_is_a_pickle_is_refused_and_loads_once_it_is_converted(make_model):
    dense = {"kind": "Dense", "in_features": 28, "out_features": 5, "bias": True}
    dense["activation_function"] = "torch.nn.modules.activation.Tanh"
    path = make_model(modules=[{"kind": "Pooling"}, dense])
    before = sbert_mini.load(path, device="cpu").encode(["the cat runs"])
    weights = path / "2_Dense" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(CorruptModelError, match=r"pytorch_model\.bin.*is refused.*python -c") as refused:
        sbert_mini.load(path, device="cpu")
    subprocess.run([sys.executable, "-c", str(refused.value).split('python -c "')[1].rstrip('"')], check=True)
    np.testing.assert_array_equal(sbert_mini.load(path, device="cpu").encode(["the cat runs"]), before)


@pytest.mark.parametrize("kind", ["evilmod.Pooling", "Pooling", "sentence_transformers.models.Pooling.evil", ""])
def test_a_module_is_known_by_its_whole_type_alone(make_model, kind):
    path = make_model(modules=[{"kind": "Pooling"}])
    file = path / "modules.json"
    file.write_text(file.read_text().replace('"sentence_transformers.models.Pooling"', json.dumps(kind)))
    with pytest.raises(UnsupportedModelError, match=r"modules\.json lists a module of type"):
        read_layout(path)


def test_a_static_model_is_saved_for_plain_sentence_transformers(static_model, tmp_path):
    path = static_model()
    texts = ["The cat sleeps.", "dog zebra", "the cat " * 20, ""]
    expected = sbert_mini.Embedder(path).encode(texts)
    model = sbert_mini.load(path)
    np.testing.assert_allclose(model.encode(texts), expected, atol=1e-6)
    model.save(str(tmp_path / "plain"))
    plain = SentenceTransformer(str(tmp_path / "plain"))
    assert type(plain) is SentenceTransformer
    np.testing.assert_allclose(plain.encode(texts), expected, atol=1e-6)
    again = sbert_mini.Embedder(tmp_path / "plain")
    assert again.max_seq_length == 11
    assert again.encode(texts).tobytes() == expected.tobytes()
