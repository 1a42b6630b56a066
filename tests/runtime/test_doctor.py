"""`sbmini doctor`: what is here, and that what was asked for works."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
from conftest import one_error, tiny_model

from sbert_mini.errors import install_command
from sbert_mini.native.library import Opened
from sbert_mini.runtime import doctor
from sbert_mini.runtime.native_library import levels


def test_the_screen_says_what_is_here(sbmini_here):
    done = sbmini_here("doctor")
    assert done.returncode == 0, done.stderr
    lines = {line[:16].strip(): line[16:] for line in done.stdout.splitlines() if line[:16].strip()}
    assert lines["sbert-mini"].startswith(f"{version('sbert-mini')}, Python {sys.version.split()[0]}")
    assert lines["native code"].startswith(levels()[-1] if levels() else "none")
    assert lines["model"].startswith("sbert-mini works, computed by ")
    assert f"numpy {version('numpy')}" in lines["packages"]
    assert lines["telemetry"].startswith("off")
    assert len(done.stdout.splitlines()) < 40


def test_json_has_the_same(sbmini_here):
    done = sbmini_here("doctor", "--json", "--model", "sbert-mini-fast")
    found = json.loads(done.stdout)
    assert (done.returncode, found["problems"]) == (0, [])
    assert (found["model"]["name"], found["model"]["works"]) == ("sbert-mini-fast", True)
    assert found["native"]["levels"] == list(levels())
    assert {"onnx", "train", "documents"} <= {extra["name"] for extra in found["extras"]}
    assert not {"test", "all"} & {extra["name"] for extra in found["extras"]}
    assert [place["writable"] for place in found["places"]][:2] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "env", "part"),
    [
        (["-m", "no-such-model"], {}, "no model 'no-such-model'"),
        (["-m", "org/name"], {"HF_HUB_OFFLINE": "1"}, "the network is switched off"),
        ([], {"SBMINI_MODEL": "./nothing"}, "no model './nothing'"),
        ([], {"SBMINI_BACKEND": "abacus"}, "SBMINI_BACKEND must be one of"),
        ([], {"SBMINI_THREADS": "many"}, "SBMINI_THREADS must be a whole number"),
        ([], {"SBMINI_CACHE_DIR": "/dev/null/cache"}, "SBMINI_CACHE_DIR=/dev/null/cache cannot be written"),
    ],
)
def test_what_was_asked_for_and_cannot_work_is_an_error(sbmini_here, arguments, env, part):
    done = sbmini_here("doctor", "--json", *arguments, env=env)
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith("sbmini: error: what was asked for does not work: ")
    assert error.count(part) == 1
    assert part in " ".join(json.loads(done.stdout)["problems"])


def test_a_level_that_the_processor_lacks_is_an_error(sbmini_here):
    absent = "neon_dotprod" if "avx2" in levels() else "avx2"
    done = sbmini_here("doctor", env={"SBMINI_BACKEND": absent})
    assert done.returncode == 1
    assert "does not compute this model here" in done.stderr or "needs the package" in done.stderr


def test_a_hub_model_that_is_not_in_the_cache_is_no_error_where_it_can_be_fetched(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    found = doctor.examine("org/nothing-such")
    assert found["problems"] == []
    assert found["model"]["note"].endswith("its first use fetches it")


def test_a_model_without_graphs_is_not_converted(tmp_path):
    folder = tiny_model(tmp_path / "model")
    found = doctor.examine(str(folder))
    assert (found["model"]["works"], found["problems"]) == (True, [])
    assert "converted at its first use" in found["model"]["note"]
    assert not (folder / "onnx").exists()


def test_a_library_that_does_not_load_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(
        doctor, "opened", lambda: Opened(tmp_path / "_encoder.so", None, "the system does not load it: X")
    )
    monkeypatch.setattr(doctor, "levels", tuple)
    native = doctor.examine()["native"]
    assert (native["level"], native["reason"]) == (None, "the system does not load it: X")


def test_commands_of_extras_are_those_that_errors_name(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: "" if package == "pypdf" else "1")
    extras = {extra["name"]: extra for extra in doctor.examine()["extras"]}
    assert extras["documents"] == {
        "name": "documents",
        "missing": ["pypdf"],
        "command": "pip install 'sbert-mini[documents]'",
    }
    assert extras["onnx"]["command"] is None


def test_the_command_is_quoted_for_the_shell(monkeypatch):
    assert install_command() == "pip install sbert-mini"
    assert install_command("onnx") == "pip install 'sbert-mini[onnx]'"
    monkeypatch.setattr("os.name", "nt")
    assert install_command("onnx") == 'pip install "sbert-mini[onnx]"'


def test_it_imports_nothing_heavy():
    script = "import sys; from sbert_mini.runtime.doctor import examine; examine(); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not {"torch", "faiss", "pyarrow", "onnxruntime", "huggingface_hub"} & loaded


def test_usage(sbmini_here):
    one_error(sbmini_here("doctor", "more"), 2, "unexpected extra argument")
