"""The benchmark of a GPU, tried on the CPU with a tiny model; without a GPU it says so in one line."""

import json

import pytest
import torch
from conftest import tiny_model

from benchmarks import gpu


def test_the_script_for_a_gpu_runs_on_the_cpu(tmp_path, monkeypatch, capsys):
    model = tiny_model(tmp_path / "model")
    small = ["--texts", "6", "--batch-size", "4", "--examples", "4", "--steps", "1", "--rounds", "1"]
    monkeypatch.setattr(
        "sys.argv", ["gpu", "--device", "cpu", "--model", str(model), "--no-save", "--threads", "1", *small]
    )
    threads = torch.get_num_threads()
    try:
        gpu.main()
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == "cpu"
    result = json.loads(said.out.splitlines()[-1])
    assert result["device"] == "cpu"
    assert list(result["encoding"]) == ["Embedder (torch on cpu, float32)", "sentence-transformers (float32)"]
    assert result["encoding"]["sentence-transformers (float32)"]["times_faster"] == 1
    assert result["training"]["no surgery"]["to_no_surgery"] == 1
    assert set(result["training"]) == set(gpu.RULES)
    for entry in result["training"].values():
        assert entry["ms"]["median"] > 0
    assert "| cpu, batches of 4 | texts/s | times faster |" in said.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so_in_one_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == "no CUDA device; not run"  # printed to stderr, with exit code 1
