"""ONNX Runtime is imported with its telemetry switched off; no command and no dependency opens a socket or writes below HOME."""

import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from workshop import RECIPE

import sbert_mini
from sbert_mini.errors import CorruptModelError
from sbert_mini.runtime import graph
from sbert_mini.runtime.engine import OPERATORS, OnnxEngine
from sbert_mini.runtime.fingerprint import file_sha256
from sbert_mini.runtime.graphs import find

HOOK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <netdb.h>
static void note(const char *what, const char *name) {
    FILE *file = fopen(getenv("SOCKET_LOG"), "a");
    if (file) { fprintf(file, "%s%s\n", what, name); fclose(file); }
}
int socket(int family, int kind, int protocol) {
    int (*next)(int, int, int) = dlsym(RTLD_NEXT, "socket");
    if (family == AF_INET || family == AF_INET6) note("socket", "");
    return next(family, kind, protocol);
}
int connect(int handle, const struct sockaddr *address, socklen_t size) {
    int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    if (address->sa_family == AF_INET || address->sa_family == AF_INET6) note("connect", "");
    return next(handle, address, size);
}
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    note("look up ", node ? node : "localhost");
    return next(node, service, hints, result);
}
"""
STAY = """
import os, sys, time
seconds, leave = float(sys.argv.pop(1)), os._exit
def stay(code):
    time.sleep(seconds)
    leave(code)
os._exit = stay
from sbert_mini.cli.main import main
main()
"""
DEPENDENCIES = (
    "huggingface_hub",
    "pyarrow.parquet",
    "faiss",
    "ray",
    "pymilvus",
    "matplotlib.pyplot",
    "tokenizers",
    "safetensors",
)


@pytest.fixture(scope="module")
def hook(tmp_path_factory):
    """A library that notes each socket of the internet and each look-up of a name, those of C libraries too."""
    if shutil.which("gcc") is None or sys.platform != "linux":
        pytest.skip("needs gcc, on Linux")
    folder = tmp_path_factory.mktemp("hook")
    (folder / "hook.c").write_text(HOOK)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "hook.so", folder / "hook.c", "-ldl"], check=True)
    return folder / "hook.so"


@pytest.fixture
def watched(hook, tmp_path):
    """Start Python under the hook, in an empty home; what is returned waits, and gives what was opened and written."""
    left_out = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "HF_HUB_OFFLINE", "MPLCONFIGDIR", "SBMINI_CACHE_DIR")

    def start(name, *arguments):
        home, log = tmp_path / name / "home", tmp_path / name / "sockets"
        home.mkdir(parents=True)
        environment = {k: v for k, v in os.environ.items() if k not in left_out}
        environment |= {"HOME": str(home), "LD_PRELOAD": str(hook), "SOCKET_LOG": str(log)}
        process = subprocess.Popen(
            [sys.executable, "-c", *map(str, arguments)],
            env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

        def finish():
            _, stderr = process.communicate(timeout=600)
            assert process.returncode == 0, stderr
            files = [file.relative_to(home).as_posix() for file in home.rglob("*") if file.is_file()]
            return (log.read_text().splitlines() if log.exists() else []), files

        return finish

    return start


def test_the_hook_sees_sockets(watched):
    code = "import socket; socket.socket(); socket.socket(socket.AF_UNIX); socket.getaddrinfo('127.0.0.1', 1)"
    assert watched("seen", code)() == (["socket", "look up 127.0.0.1"], [])


@pytest.mark.parametrize("seconds", [2, pytest.param(10, marks=pytest.mark.long)])
def test_no_command_opens_a_socket_or_writes_below_home(watched, converted_model, tmp_path, seconds):
    rows = tmp_path / "rows.txt"
    rows.write_text("the cat\na dog\nred house\n")
    model = ("-m", converted_model())
    first = {
        "encode": ("encode", "-i", rows, "--graph", "fp32", *model),
        "dedup": ("dedup", "-i", rows, "--graph", "fp32", *model),
        "create": ("index", "create", "i", "-i", rows, "--graph", "fp32", *model),
        "info": ("models", "info", model[1]),
    }
    then = {
        "search": ("search", "i", "cat"),
        "verify": ("index", "verify", "i"),
        "compact": ("index", "compact", "i", "--kind", "SQ8"),
    }
    for commands in (first, then):
        running = {name: watched(name, STAY, seconds, *arguments) for name, arguments in commands.items()}
        assert {name: finish() for name, finish in running.items()} == dict.fromkeys(commands, ([], []))


@pytest.mark.long
def test_neither_training_nor_predicting_nor_measuring_connects(watched, workshop, tmp_path):
    (workshop / "recipe.toml").write_text(RECIPE.replace("steps = 60", "steps = 2").replace("every = 7", "every = 2"))
    rows = tmp_path / "rows.txt"
    rows.write_text("".join(f"the cat and {n} dogs\n" for n in range(200)))
    (tmp_path / "mood.txt").write_text("the cat\n")
    trained, vectors = workshop / "trained", tmp_path / "vectors.npy"
    small = ("-m", trained, "--threads", "1", "--offline")
    measured = ("-i", rows, "--rounds", "1", *small)
    for commands in (
        {"train": ("train", workshop / "recipe.toml"), "encode": ("encode", "-i", rows, "-o", vectors, "-m", workshop / "start")},
        {"predict": ("predict", "-m", trained, "-t", "mood", "-i", tmp_path / "mood.txt", "--graph", "fp32"),
         "reduce": ("reduce", "fit", vectors, "-o", tmp_path / "r.safetensors", "--dim", "8"),
         "soup": ("soup", trained, trained, "-o", tmp_path / "soup")},
        {"sts": ("bench", "sts", "--sets", "builtin", "--runtime", "fp32", *small),
         "kinds": ("bench", "search", "--no-peer", "--kind", "SQ8", "--rows", "150", *measured)},
        {"pairs": ("bench", "pairs", "--n", "100", "--sample", "8", *measured),
         "speed": ("bench", "speed", "--no-peer", "--texts", "64", *measured)},
    ):  # fmt: skip
        running = {name: watched(name, STAY, 10, *arguments) for name, arguments in commands.items()}
        assert {name: finish() for name, finish in running.items()} == dict.fromkeys(commands, ([], []))


@pytest.mark.long
@pytest.mark.parametrize("module", DEPENDENCIES)
def test_no_dependency_connects_when_it_is_imported(watched, module):
    pytest.importorskip(module.partition(".")[0])
    sockets, files = watched("import", f"import time, {module}\ntime.sleep(10)")()
    ours = {"localhost", "127.0.0.1", "::1", socket.gethostname()}  # Ray and urllib3 try whether this machine has IPv6
    assert [line for line in sockets if line != "socket" and line.removeprefix("look up ") not in ours] == []
    assert [file for file in files if not file.startswith((".cache/matplotlib", ".cache/fontconfig"))] == []


def test_the_onnx_backend_leaves_no_trace(tmp_path):
    code = """
import os, sys
from sbert_mini import Embedder
assert "onnxruntime" not in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ
Embedder("sbert-mini-fast", backend="onnx", threads=1, offline=True).encode(["a cat"])
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert [path for path in tmp_path.rglob("*") if "icrosoft" in path.name or "onnxruntime" in path.name] == []


def test_the_operators_of_a_graph_share_a_limited_memory():
    """A file of 400 kB, whose product of one input would take 4 GB."""
    pytest.importorskip("onnx")
    code = """
import re
import numpy as np
from onnx import TensorProto, helper
from sbert_mini.runtime.onnx_runtime import arena_bytes, import_onnxruntime, session_options
row = np.ones(100_000, np.float32)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
    [helper.make_tensor("w", TensorProto.FLOAT, [1, len(row)], row.tobytes(), raw=True)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnxruntime = import_onnxruntime("a test")
options = session_options(onnxruntime)
options.log_severity_level = 4
run = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run
assert run(None, {"x": np.ones((10, 1), np.float32)})[0].shape == (10, len(row))
try:
    run(None, {"x": np.ones((10_000, 1), np.float32)})
except Exception as error:
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10  # since its start: no parent's
    print(type(error).__name__, peak < arena_bytes() + (400 << 20))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["True"]), done.stdout + done.stderr


def test_a_graph_with_another_operator_is_refused(converted_model):
    onnx = pytest.importorskip("onnx")
    converted = find(converted_model(), "fp32")
    model = onnx.load(converted.file)
    model.graph.node[0].op_type = "Loop"
    converted.file.write_bytes(model.SerializeToString())
    changed = replace(converted, sha256=file_sha256(converted.file))
    with pytest.raises(
        CorruptModelError, match=r"holds the operator 'Loop', .*: delete the folder .*onnx, and the graphs"
    ):
        OnnxEngine(changed)


def test_the_operators_are_those_that_are_written():
    source = Path(graph.__file__).read_text("utf-8")
    written = set(re.findall(r'node\(\s*"(\w+)"', source)) | set(re.findall(r'": "([A-Z]\w+)"', source))
    assert written == OPERATORS


def test_it_is_imported_in_one_place():
    package = Path(sbert_mini.__file__).parent
    sources = {path.relative_to(package).as_posix(): path.read_text("utf-8") for path in package.rglob("*.py")}
    pattern = re.compile(r"^\s*(import|from) onnxruntime\b|import_module\(", re.M)
    importing = {name for name, source in sources.items() if pattern.search(source)}
    assert importing == {"runtime/onnx_runtime.py", "__init__.py"}  # the latter: our own modules, by the public names
