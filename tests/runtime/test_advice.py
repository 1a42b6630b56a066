"""Errors and notes give advice that works, in the words of whoever reads them."""

import pytest
from conftest import one_error

from sbert_mini import Embedder
from sbert_mini.errors import UsageError


def test_a_file_and_a_foreign_folder_are_no_index(sbmini, tmp_path):
    (tmp_path / "sci.jsonl").write_text('{"text": "a cat"}\n')
    one_error(sbmini("search", "sci.jsonl", "x"), 1, "sci.jsonl is a file", "index create DIRECTORY --input sci.jsonl")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("x")
    one_error(sbmini("search", "notes", "x"), 1, "notes holds no index", "empty or absent directory")


def test_a_file_that_is_no_npy_is_not_said_to_be_a_pickle(sbmini_here, tmp_path):
    (tmp_path / "v.jsonl").write_text('{"text": "a cat"}\n')
    done = sbmini_here("reduce", "fit", "v.jsonl", "-d", 2, "-o", "pca.safetensors")
    one_error(done, 1, "v.jsonl is not a .npy file")
    assert "pickle" not in done.stderr


def test_the_shell_reads_of_options_and_python_of_arguments(sbmini_here, tmp_path, make_model):
    model = make_model()
    one_error(sbmini_here("encode", "-q", "a cat", "-m", model, "--dim", 500), 2, "--dim must be from 1 to 28")
    with pytest.raises(UsageError, match=r"^truncate_dim must be from 1 to 28"):
        Embedder(model).encode(["a cat"], truncate_dim=500)
    one_error(
        sbmini_here("encode", "a cat", "-m", model, "--dim", 500, "--precision", "int8"),
        2,
        "--dim must be from 1 to 28",
    )
    assert "(--truncation chunk reads them whole)" in sbmini_here("encode", "a cat " * 40, "-m", model).stderr


def test_a_run_resumed_with_another_model_names_both(tmp_path, make_model):
    from sbert_mini.runtime.job import EncodeJob, EncodeSettings
    from sbert_mini.text.records import Record

    first, other = Embedder(make_model()), Embedder(make_model(seed=1))

    def broken():
        yield from (Record("a cat") for _ in range(30))
        raise KeyboardInterrupt

    settings = EncodeSettings(window=5)
    with pytest.raises(KeyboardInterrupt):
        EncodeJob(tmp_path / "v.npy", first, settings).run(broken())
    with pytest.raises(UsageError, match=f"model {first.path}, and this run has {other.path}"):
        EncodeJob(tmp_path / "v.npy", other, settings, resume=True)
