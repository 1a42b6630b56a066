"""Groups in a file: what is written is read, and other rows are refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from sbert_mini.atlas.group_file import FORMAT, GroupFile
from sbert_mini.atlas.rows import Rows
from sbert_mini.errors import InputError

CENTRES = np.eye(2, 3, dtype=np.float32)


def rows_with(vectors, fingerprint=None):
    return Rows(np.asarray(vectors, np.float32), [str(i) for i in range(len(vectors))], None, fingerprint)


@pytest.fixture
def file(tmp_path):
    GroupFile(CENTRES, ("cats", "dogs"), 0.7, "f" * 64, "passage: ").save(tmp_path / "g.safetensors")
    return tmp_path / "g.safetensors"


def test_what_is_written_is_read(file):
    groups = GroupFile.load(file)
    assert (groups.names, groups.threshold, groups.fingerprint, groups.prompt) == (
        ("cats", "dogs"),
        0.7,
        "f" * 64,
        "passage: ",
    )
    np.testing.assert_array_equal(groups.centres, CENTRES)
    numbers, cosines = groups.assigned(rows_with([[0, 1, 0], [0.8, 0.6, 0], [0, 0, 1]], "f" * 64))
    assert numbers.tolist() == [1, 0, -1]
    assert cosines.tolist() == pytest.approx([1, 0.8, 0])
    assert groups.assigned(rows_with([[0.8, 0.6, 0]]), 0.9)[0].tolist() == [-1]


def test_rows_of_another_model_are_refused(file):
    groups = GroupFile.load(file)
    with pytest.raises(InputError, match="another model"):
        groups.assigned(rows_with([[1, 0, 0]], "e" * 64))
    with pytest.raises(InputError, match="2 components, and the groups' centres 3"):
        groups.assigned(rows_with([[1, 0]]))


@pytest.mark.parametrize(
    ("changes", "centres", "reason"),
    [
        ({"format": "x"}, CENTRES, "holds no groups"),
        ({"names": ["a"]}, CENTRES, "a row a name"),
        ({"names": [1, 2]}, CENTRES, "names"),
        ({"threshold": 2}, CENTRES, "threshold"),
        ({"threshold": 0}, CENTRES, "threshold is 0"),
        ({}, CENTRES.astype(np.float16), "F16"),
        ({}, CENTRES * np.nan, "NaN"),
    ],
)
def test_damaged_files_are_refused(tmp_path, changes, centres, reason):
    metadata = {"format": FORMAT, "names": ["a", "b"], "threshold": 0.7, "fingerprint": None, "prompt": "", **changes}
    save_file({"centres": centres}, tmp_path / "g.safetensors", {"sbert_mini": json.dumps(metadata)})
    with pytest.raises(InputError, match=reason):
        GroupFile.load(tmp_path / "g.safetensors")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "g.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read"):
        GroupFile.load(tmp_path / "g.safetensors")
    save_file(
        {"other": CENTRES},
        tmp_path / "g.safetensors",
        {"sbert_mini": json.dumps({"format": FORMAT, "names": [], "threshold": 1})},
    )
    with pytest.raises(InputError, match="no tensor 'centres'"):
        GroupFile.load(tmp_path / "g.safetensors")
