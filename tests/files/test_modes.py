"""The modes of the files that are written: what the umask leaves, as of any other new file."""

import os
from contextlib import contextmanager

import pytest
from conftest import run_here, tiny_model

import sbert_mini
from sbert_mini.model.heads import HeadConfig
from sbert_mini.training.averaging import soup
from sbert_mini.training.heads import Head

UMASKS = [0o022, 0o027, 0o077]


@contextmanager
def umask_of(umask):
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder):
    return {str(f.relative_to(folder)): f.stat().st_mode & 0o777 for f in folder.rglob("*") if f.is_file()}


def test_a_saved_model_has_the_modes_that_the_umask_leaves(tmp_path):
    start = tmp_path / "start"
    start.mkdir()
    tiny_model(
        start,
        modules=[
            {"kind": "Pooling", "word_embedding_dimension": 28, "pooling_mode_mean_tokens": True},
            {"kind": "Dense", "in_features": 28, "out_features": 12, "activation_function": "torch.nn.modules.linear.Identity"},
        ],
    )  # fmt: skip
    model = sbert_mini.load(start)
    for umask in UMASKS:
        out, average = tmp_path / f"{umask:03o}", tmp_path / f"{umask:03o}-soup"
        with umask_of(umask):
            model.save(str(out))
            Head(HeadConfig(task="t", structure="siamese", kind="regression", dimension=28)).save(out)
            soup([out, out], average)
        for folder in (out, average):
            found = modes(folder)
            assert {"model.safetensors", "2_Dense/model.safetensors", "heads/t/model.safetensors"} <= found.keys()
            assert set(found.values()) == {0o666 & ~umask}, (folder, found)
        assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("umask", UMASKS)
def test_an_encoded_file_has_the_mode_that_the_umask_leaves(tmp_path, umask):
    with umask_of(umask):
        assert run_here(tmp_path, "encode", "-q", "a cat", "-o", "v.npy").returncode == 0
    assert modes(tmp_path) == {"v.npy": 0o666 & ~umask}
