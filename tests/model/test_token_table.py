"""Tables of token vectors: 4 bits a component and back, sizes that are checked before rows are read, damage."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sbert_mini.errors import CorruptModelError, UnsupportedModelError
from sbert_mini.model.layout import read_layout
from sbert_mini.model.token_table import PACKED, PLAIN, RECORD, find_table, read_table, write_packed


def written(path, tokens=5, dimension=6, seed=3):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(-7, 8, (tokens, dimension))
    scales = rng.uniform(0.1, 2, tokens).astype(np.float16)
    write_packed(path, numbers, scales, None)
    return numbers * scales.astype(np.float64)[:, None]


def test_a_packed_table_comes_back_exactly(tmp_path):
    expected = written(tmp_path)
    file = find_table(tmp_path)
    table = read_table(file)
    assert (file.tokens, file.dimension, file.is_packed, file.space) == (5, 6, True, None)
    assert table.rows.shape == (5, 3)
    np.testing.assert_array_equal(table.floats(), expected.astype(np.float32))
    np.testing.assert_array_equal(table.floats(np.array([4, 1])), expected[[4, 1]].astype(np.float32))
    np.testing.assert_array_equal(table.without(np.array([2])).floats()[2], np.zeros(6))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_a_table_of_sentence_transformers_is_read(tmp_path, dtype):
    rows = np.random.default_rng(0).standard_normal((7, 3)).astype(dtype)
    save_file({"embedding.weight": rows}, tmp_path / PLAIN)
    file = find_table(tmp_path)
    assert (file.tokens, file.dimension, file.sha256, file.is_packed) == (7, 3, None, False)
    table = read_table(file)
    np.testing.assert_array_equal(table.floats(), rows.astype(np.float32))
    assert not table.without(np.array([0, 6])).rows[[0, 6]].any()
    assert table.rows[0].any()


def changed(change):
    def of(path):
        tensors = load_file(path / PACKED)
        change(tensors)
        save_file(tensors, path / PACKED)

    return of


def record(**keys):
    def of(path):
        data = json.loads((path / RECORD).read_text())
        (path / RECORD).write_text(json.dumps({**data, **keys}))

    return of


@pytest.mark.parametrize(
    ("damage", "error", "text"),
    [
        (changed(lambda t: t.pop("scales")), CorruptModelError, "has no scales"),
        (changed(lambda t: t.update(scales=t["scales"][:4])), CorruptModelError, "one number for each of the 5 rows"),
        (changed(lambda t: t.update(rows=t["rows"][0])), CorruptModelError, "found the shape"),
        (changed(lambda t: t.update(rows=t["rows"][:0])), CorruptModelError, "found the shape"),
        (changed(lambda t: t.update(rows=t["rows"].astype(np.int8))), UnsupportedModelError, "type U8; found I8"),
        (changed(lambda t: t.update(scales=t["scales"] * np.float16("nan"))), CorruptModelError, "NaN or infinity"),
        (lambda path: (path / PACKED).write_bytes((path / PACKED).read_bytes()[:-3]), CorruptModelError, "safetensors"),
        (lambda path: (path / PACKED).unlink(), CorruptModelError, "cannot be read"),
        (lambda path: (path / RECORD).unlink(), CorruptModelError, "neither model.safetensors nor token_vectors.json"),
        (record(format=2), UnsupportedModelError, "of format 2"),
        (record(sha256="x"), CorruptModelError, "sha256"),
        (record(space=7), CorruptModelError, "space"),
    ],
)
def test_damage_is_one_error(tmp_path, damage, error, text):
    written(tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=text):
        read_table(find_table(tmp_path))


def test_a_header_that_promises_more_than_the_file_holds_is_refused_before_memory_is_taken(tmp_path):
    header = json.dumps(
        {"embedding.weight": {"dtype": "F32", "shape": [1 << 24, 1 << 16], "data_offsets": [0, 1 << 42]}}
    )
    (tmp_path / PLAIN).write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(CorruptModelError, match="safetensors"):
        find_table(tmp_path)


def test_other_modules_and_an_encoders_tasks_are_refused(static_model):
    path = static_model()
    layout = read_layout(path)
    assert (layout.vocab_size, layout.dimension, layout.max_seq_length, layout.normalize) == (13, 22, 11, True)
    with pytest.raises(UnsupportedModelError, match="static model, a table of token vectors: it has no encoder"):
        layout.require_encoder()
    modules = json.loads((path / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.Pooling"
    (path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedModelError, match="'Pooling' after StaticEmbedding; only Normalize is run"):
        read_layout(path)
