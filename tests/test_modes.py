"""The modes of the files that are written: what the umask leaves, as of any other new file."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tiny_model

SAVE = """
import os
import sys
from pathlib import Path
import sbert_mini
from sbert_mini.training.averaging import soup
from sbert_mini.training.heads import Head
from sbert_mini.runtime.heads import HeadConfig

model = sbert_mini.load(sys.argv[1])
for umask in (0o022, 0o027, 0o077):
    os.umask(umask)
    out = Path(f"{umask:03o}")
    model.save(str(out))
    Head(HeadConfig(task="t", structure="siamese", kind="regression", dimension=28)).save(out)
    soup([out, out], Path(f"{umask:03o}-soup"))
"""


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
    subprocess.run([sys.executable, "-c", SAVE, start], check=True, cwd=tmp_path, timeout=600)
    for umask in (0o022, 0o027, 0o077):
        for name in (f"{umask:03o}", f"{umask:03o}-soup"):
            found = modes(tmp_path / name)
            assert {"model.safetensors", "2_Dense/model.safetensors", "heads/t/model.safetensors"} <= found.keys()
            assert set(found.values()) == {0o666 & ~umask}, (name, found)
        assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_an_encoded_file_has_the_mode_that_the_umask_leaves(tmp_path, umask):
    command = str(Path(sys.executable).with_name("sbmini"))
    subprocess.run(
        [command, "encode", "-q", "a cat", "-o", "v.npy"], check=True, cwd=tmp_path, timeout=600, umask=umask,
    )  # fmt: skip
    assert modes(tmp_path) == {"v.npy": 0o666 & ~umask}
