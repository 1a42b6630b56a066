"""JSON of models and indexes with a changed structure, all checksums right: an answer or an error of ours, nothing else.

`make fuzz` runs ten times as many cases. A failure names the case: `SBMINI_FUZZ_SEED` gives it again.
"""

import hashlib
import json
import os
from functools import partial

import numpy as np
import pytest
from fuzz_json import Restored, cases, mutated, refused, reseal, sealed

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.files.durable import json_bytes
from sbert_mini.model.heads import HeadConfig, read_head
from sbert_mini.model.layout import graphs_folder, read_layout
from sbert_mini.model.weights import read_dense_weights, weight_files
from sbert_mini.runtime.graph_record import read_ranges, read_record
from sbert_mini.text.records import Record
from sbert_mini.text.tokenizer import TextTokenizer, open_tokenizer

SEED = os.environ.get("SBMINI_FUZZ_SEED", "7")
MODEL_FILES = [
    "config.json",
    "modules.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "heads/mood/config.json",
    "onnx/sbmini.json",
    "onnx/ranges.json",
    "model.safetensors.index.json",
]
SEGMENT = "segments/000001"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from conftest import tiny_converted_model
    from safetensors.numpy import save_file

    dense = {"kind": "Dense", "in_features": 28, "out_features": 6, "bias": True}
    dense["activation_function"] = "torch.nn.modules.activation.Tanh"
    path = tiny_converted_model(
        tmp_path_factory.mktemp("fuzz") / "model", modules=[{"kind": "Pooling", "pooling_mode": "mean"}, dense]
    )
    TextTokenizer.from_directory(path, 31).save(path)
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 31, "do_lower_case": false}')
    (path / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "the "}, "default_prompt_name": null, "similarity_fn_name": "cosine", "truncate_dim": 4}'
    )
    head = HeadConfig("mood", "single", "classification", 6, ("good", "bad"), columns=("text",))
    head.write(path / "heads" / "mood")
    save_file(
        {name: np.zeros(shape, np.float32) for name, shape in head.shapes().items()},
        path / "heads" / "mood" / "model.safetensors",
    )
    for name in ("one.safetensors", "two.safetensors"):
        (path / name).touch()
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    Embedder(path, threads=1)
    return path


@pytest.fixture(scope="module")
def index(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "index"
    rows = [Record(f"the cat {i}", id=f"id {i}", columns={"n": i, "name": f"cat {i % 3}"}) for i in range(12)]
    IndexWriter(path, Embedder(model, threads=1)).create(rows)
    return path


def use_model(path, changed):
    """Read a model's files: what describes it and the tokenizer, and else the file that was changed."""
    layout = read_layout(path)
    open_tokenizer(layout).encode(["the cat [SEP] runs", ("a", "b")])
    if changed not in MODEL_FILES[-5:]:
        return
    for layer in layout.dense:
        read_dense_weights(layer)
    read_head(path, "mood")
    record = read_record(graphs_folder(path))
    read_ranges(graphs_folder(path), "" if record is None else record["fingerprint"], layout.dimension)
    (path / "model.safetensors").rename(path / "away")  # so that the index of shards is read
    try:
        weight_files(path)
    finally:
        (path / "away").rename(path / "model.safetensors")


def use_index(path):
    index = SearchIndex(path, threads=1)
    rng = np.random.default_rng(0).standard_normal((2, max(1, min(index.model.dimension, 4096)))).astype(np.float32)
    index.nearest(rng / np.linalg.norm(rng, axis=1, keepdims=True), 3)
    index.get("id 3")
    store = index._store
    for segment in store.segments:
        for name in ("n", "name"):
            column = segment.columns.column(name)
            if column is not None:
                column.values(0, segment.rows)
    index.verify()


def fuzz_model(path, count):
    originals = {name: json.loads((path / name).read_bytes()) for name in MODEL_FILES}
    outcomes = []
    for number, rng in cases(count, f"{SEED}/model"):
        name = MODEL_FILES[number % len(MODEL_FILES)]
        with Restored(path) as files:
            text = mutated(originals[name], rng)
            files.write(name, text.encode("utf-8", "surrogatepass"))
            try:
                outcomes.append(refused(partial(use_model, path, name)))
            except BaseException as error:
                raise AssertionError(f"case {SEED}/model/{number}, {name}: {error!r}\n{text[:2000]}") from error
    return outcomes


def mutate_index(files, number, rng):
    """Change one of an index's JSON files, and let every checksum above it be right."""
    path = files.folder
    manifest = json.loads((path / "generations" / "000001.json").read_bytes())
    kind = number % 4
    if kind == 0:
        pointer = json.loads((path / "CURRENT").read_bytes().rsplit(b"\n", 2)[0])
        files.write("CURRENT", sealed(mutated(pointer, rng)))
        return
    if kind == 1:
        reseal(files, mutated(manifest, rng).encode("utf-8", "surrogatepass"))
        return
    checksums = json.loads((path / SEGMENT / "checksums.json").read_bytes())
    if kind == 2:
        data = mutated(checksums, rng).encode("utf-8", "surrogatepass")
    else:
        name = rng.choice(["columns.json", "rows.jsonl"])
        whole = (path / SEGMENT / name).read_bytes()
        if name == "columns.json":
            new = mutated(json.loads(whole), rng).encode("utf-8", "surrogatepass")
        else:
            lines = whole.splitlines(keepends=True)
            line = mutated(json.loads(lines[3]), rng).encode("utf-8", "surrogatepass").ljust(len(lines[3]))
            new = b"".join([*lines[:3], line[: len(lines[3]) - 1] + b"\n", *lines[4:]])
        files.write(f"{SEGMENT}/{name}", new)
        checksums["files"][name] |= {"bytes": len(new), "sha256": [hashlib.sha256(new).hexdigest()]}
        data = json_bytes(checksums)
    files.write(f"{SEGMENT}/checksums.json", data)
    manifest["segments"][0]["checksums_sha256"] = hashlib.sha256(data).hexdigest()
    reseal(files, manifest)


def fuzz_index(path, count):
    outcomes = []
    for number, rng in cases(count, f"{SEED}/index"):
        with Restored(path) as files:
            mutate_index(files, number, rng)
            try:
                outcomes.append(refused(partial(use_index, path)))
            except BaseException as error:
                raise AssertionError(f"case {SEED}/index/{number}: {error!r}") from error
    return outcomes


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_model_of_any_json_structure_is_read_or_refused(model, count):
    outcomes = fuzz_model(model, count)
    assert count * 0.3 < sum(outcome is not None for outcome in outcomes) < count
    assert not any("\n" in outcome for outcome in outcomes if outcome is not None)
    for name in MODEL_FILES:
        use_model(model, name)


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_an_index_of_any_json_structure_is_read_or_refused(index, count):
    outcomes = fuzz_index(index, count)
    assert count * 0.3 < sum(outcome is not None for outcome in outcomes) < count
    assert not any("\n" in outcome for outcome in outcomes if outcome is not None)
    use_index(index)
