"""The models that travel with the package."""

import dataclasses
import json
import subprocess
import sys
import zlib

import numpy as np
import pytest
from tokenizers import Tokenizer

import sbert_mini
from benchmarks.harness import RESULTS
from benchmarks.models.card import card as card_of
from benchmarks.models.static_card import card as static_card_of
from sbert_mini import Embedder
from sbert_mini.errors import ModelNotFoundError, UsageError
from sbert_mini.evaluation.sets import builtin_pairs
from sbert_mini.evaluation.sts import spearman
from sbert_mini.model import registry
from sbert_mini.runtime.quantization import calibration_texts

SHIPPED = {"sbert-mini": 25e6, "sbert-mini-fast": 18e6}
"""A model -> the most bytes that it may take in the wheel."""
PARAPHRASES = [
    ("How do I change my password?", "Where can I set a new password?"),
    ("The train was late because of snow.", "Snow delayed the train."),
    ("She bakes bread every morning.", "Each morning she makes a loaf of bread."),
    ("The meeting was moved to Friday.", "They postponed the meeting until Friday."),
]


@pytest.fixture(params=sorted(SHIPPED), scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def shipped(name):
    return Embedder(name, threads=2)


def test_it_is_small_and_says_what_it_is(name):
    folder = registry.resolve(name)
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sum(len(zlib.compress(file.read_bytes())) for file in files) <= SHIPPED[name]
    assert not list(folder.rglob("*.safetensors"))
    card = (folder / "README.md").read_text("utf-8")
    for part in (
        "license: apache-2.0",
        "## Data",
        "## Recipe",
        "## Where the data come from",
        "## Figures",
        "## What a cosine means",
        "## Audit",
    ):
        assert part in card, part
    assert "loads in plain sentence-transformers" not in card  # what travels has no weights to load
    found = json.loads((RESULTS / "model.json").read_bytes())
    assert card.endswith(card_of(name, found))
    assert "drop_evaluation = true" in card
    assert "s2orc" in card  # what the start was trained on


def test_the_static_model_is_small_says_what_it_is_and_is_in_sbert_minis_space():
    folder = registry.resolve("sbert-mini-static")
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 8e6
    found = json.loads((RESULTS / "model_static.json").read_bytes())
    assert (folder / "README.md").read_text("utf-8") == static_card_of(found)
    static, teacher = Embedder("sbert-mini-static", threads=1), Embedder("sbert-mini", threads=1)
    assert static.space == teacher.fingerprint
    first, second = (list(side) for side in zip(*PARAPHRASES, strict=True))
    for queries, documents in ((static, static), (static, teacher), (teacher, static)):
        table = queries.encode(first) @ documents.encode(second).T
        assert (table.argmax(axis=1) == np.arange(len(table))).all()


def test_the_static_model_is_saved_for_plain_sentence_transformers(tmp_path):
    from sentence_transformers import SentenceTransformer

    texts = [text for pair in PARAPHRASES for text in pair]
    sbert_mini.load("sbert-mini-static").save(str(tmp_path / "saved"))
    plain = SentenceTransformer(str(tmp_path / "saved"), local_files_only=True, device="cpu")
    np.testing.assert_allclose(plain.encode(texts), Embedder("sbert-mini-static").encode(texts), atol=1e-6)


def test_it_is_the_default():
    assert registry.default_name() == "sbert-mini"
    assert Embedder().path == registry.resolve("sbert-mini")


def test_a_model_that_is_gone_says_what_to_do(monkeypatch):
    gone = dataclasses.replace(registry.BUILTIN["sbert-mini"], folder="gone")
    monkeypatch.setitem(registry.BUILTIN, "sbert-mini", gone)
    with pytest.raises(
        ModelNotFoundError, match="'sbert-mini' is missing from this installation: install sbert-mini again"
    ):
        registry.resolve("sbert-mini")


def test_it_is_saved_for_other_tools(name, shipped, tmp_path):
    from sentence_transformers import SentenceTransformer

    sbert_mini.load(name).save(str(tmp_path / "saved"))
    plain = SentenceTransformer(str(tmp_path / "saved"), local_files_only=True, device="cpu")
    texts = [text for pair in PARAPHRASES for text in pair]
    assert (shipped.encode(texts) * plain.encode(texts, normalize_embeddings=True)).sum(axis=1).min() > 0.99


@pytest.mark.parametrize("name", [*SHIPPED, "sbert-mini-static"])
def test_it_loads_and_encodes_without_torch_or_onnx_or_a_network(name):
    script = """
import socket, sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "onnx", "transformers", "sentence_transformers"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
def refuse(*_, **__):
    raise AssertionError("a socket was opened")
socket.socket.connect = refuse
from sbert_mini import Embedder
print(Embedder(sys.argv[1]).encode(["a cat sleeps"]).shape)
"""
    done = subprocess.run([sys.executable, "-c", script, name], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(1, 384)\n"), done.stderr


def test_paraphrases_are_each_others_nearest(shipped):
    first, second = (shipped.encode(list(side)) for side in zip(*PARAPHRASES, strict=True))
    table = first @ second.T
    assert (table.argmax(axis=1) == np.arange(len(table))).all()
    assert np.diag(table).min() > 0.6
    assert table[~np.eye(len(table), dtype=bool)].max() < 0.4


@pytest.mark.parametrize("dimension", [256, 128, 64])
def test_the_first_dimensions_work_alone(shipped, dimension):
    pairs = builtin_pairs()

    def correlation(cut):
        u, v = (shipped.encode(list(side), truncate_dim=cut) for side in (pairs.first, pairs.second))
        return spearman((u * v).sum(axis=1), np.asarray(pairs.scores))

    assert correlation(dimension) > correlation(None) - 0.04


def test_training_and_torch_read_its_weights_back(name, shipped):
    model = sbert_mini.load(name)
    texts = [text for pair in PARAPHRASES for text in pair]
    ours = model.encode(texts, normalize_embeddings=True)
    assert (shipped.encode(texts) * ours).sum(axis=1).min() > 0.99


def test_the_pruned_vocabulary_splits_latin_and_greek_as_the_whole_one():
    whole, pruned = (
        Tokenizer.from_file(str(registry.resolve(name) / "tokenizer.json"))
        for name in ("sbert-mini", "sbert-mini-fast")
    )
    texts = calibration_texts()
    texts += ["TGF-β and α-helix, 10 µm", "façade Straße naïve ½ ™ € “quoted” — dash", "Ångström", "x² + y₂ ≤ ∞"]
    for text in texts:
        assert pruned.encode(text).tokens == whole.encode(text).tokens, text
    assert "[UNK]" in pruned.encode("Москва").tokens
    assert "[UNK]" not in whole.encode("Москва").tokens
    assert [pruned.token_to_id(t) for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]
    assert pruned.encode("a").ids[0] == 2
    assert pruned.encode("a").ids[-1] == 3


def test_names_lead_to_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "model").mkdir()
    assert registry.resolve("org/model") == tmp_path / "org" / "model"  # a directory wins over a hub id
    assert registry.resolve("all-MiniLM-L6-v2").name == "model"
    monkeypatch.setenv("SBMINI_MODEL", "org/model")
    assert registry.resolve() == tmp_path / "org" / "model"
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="must be a directory, and file is a file"):
        registry.resolve("file")
    for name in ("nowhere", "./org/nowhere", "a/b/c"):
        with pytest.raises(ModelNotFoundError, match="there is no model"):
            registry.resolve(name)


def test_hub_ids_come_from_the_cache_without_a_network(tmp_path):
    revision = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--org--name"
    snapshot = repo / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(revision)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_text("")
    script = """
import sys
def refuse(event, arguments):
    if event in ("socket.__new__", "socket.getaddrinfo", "socket.connect"):
        raise AssertionError(f"a socket was opened: {event} {arguments}")
sys.addaudithook(refuse)
from sbert_mini.model import registry
for name in sys.argv[1:]:
    print(registry.resolve(name, offline=True))
try:
    registry.resolve("org/other@v1", offline=True)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "org/name", f"org/name@{revision}", "org/name@main"],
        capture_output=True, text=True, env={"HF_HUB_CACHE": str(tmp_path / "hub"), "PATH": "", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *found, refused = done.stdout.splitlines()
    assert found == [str(snapshot)] * 3
    assert refused.startswith("ModelNotFoundError there is no directory 'org/other@v1' here")
    assert "switched off" in refused


def test_a_built_in_model_whose_package_is_absent_names_the_extra():
    missing = registry.BuiltinModel("no_such_package_anywhere", "model", "minilm", "a model")
    original = dict(registry.BUILTIN)
    try:
        registry.BUILTIN["absent"] = missing
        with pytest.raises(ModelNotFoundError, match=r"no-such-package-anywhere.*sbert-mini\[minilm\]"):
            registry.resolve("absent")
    finally:
        registry.BUILTIN.clear()
        registry.BUILTIN.update(original)
