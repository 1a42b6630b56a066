"""The project's own promises: layering, packaging, extras, documents that match the code."""

import ast
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from filelock import FileLock

import sbert_mini
from sbert_mini.errors import MissingExtraError, SbertMiniError, UsageError
from sbert_mini.runtime.native_library import library

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "sbert_mini").rglob("*.py")) + sorted((ROOT / "cli").glob("*.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def layers():
    """The layer table of ARCHITECTURE.md: room -> whether its modules may import torch."""
    rows = re.findall(r"^\| `([^`]+)` \|.*\| (yes|no) \|$", (ROOT / "ARCHITECTURE.md").read_text("utf-8"), re.M)
    assert len(rows) >= 7
    return {room.rstrip("/"): torch == "yes" for room, torch in rows}


def room_of(module):
    """`sbert_mini.text.tokenizer` -> `sbert_mini/text`; the modules at the top are the room `sbert_mini`."""
    parts = module.split(".")
    if parts[0] == "cli" or parts[:2] == ["sbert_mini", "cli"]:
        return "cli"
    inner = len(parts) > 1 and (ROOT / "sbert_mini" / parts[1]).is_dir()
    return f"sbert_mini/{parts[1]}" if inner else "sbert_mini"


def imports(path):
    """Yield (module, at module level) for each import statement that runs or may run."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if not node.level else []
            if names == ["sbert_mini"]:
                names = [f"sbert_mini.{alias.name}" for alias in node.names]
        for name in names:
            yield name, id(node) not in inside


def test_a_room_imports_only_rooms_above_it():
    order = list(layers())
    assert {room_of(".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in SOURCES} <= set(order)
    checked = 0
    for path in SOURCES:
        if path.name == "__main__.py":
            continue  # the entry point, which is the command's
        room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for module, _ in imports(path):
            if module.split(".")[0] == "sbert_mini":
                checked += 1
                target = room_of(module)
                assert order.index(target) <= order.index(room), f"{path} imports {module}"
    assert checked > 40


def test_heavy_packages_stay_out_of_the_rooms_that_say_so():
    heavy = {"torch", "transformers", "sentence_transformers", "datasets", "scipy", "pandas", "sklearn", "matplotlib"}
    for path in SOURCES:
        room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for module, at_top in imports(path):
            package = module.split(".")[0]
            assert package not in heavy or layers()[room], f"{path} imports {module}"
            if path.parent.name == "cli":
                allowed = {"sbert_mini", "typer"} | set(sys.stdlib_module_names)
                assert not at_top or package in allowed, f"{path} imports {module} before a command has run"


def test_no_unit_is_too_long():
    """The limits of CONTRIBUTING: 600 lines a module, 250 a class, 80 a function."""
    limits = {ast.Module: 600, ast.ClassDef: 250, ast.FunctionDef: 80, ast.AsyncFunctionDef: 80}
    too_long = []
    for path in [*SOURCES, *sorted((ROOT / "benchmarks").rglob("*.py"))]:
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            lines = (
                text.count("\n")
                if isinstance(node, ast.Module)
                else getattr(node, "end_lineno", 0) - getattr(node, "lineno", 1) + 1
            )
            if lines > limits.get(type(node), lines):
                too_long.append((str(path), getattr(node, "name", ""), lines))
    assert too_long == []


def test_every_planted_fault_has_its_place_in_the_code():
    """`make mutants` finds a fault by a pattern: a change of the code must change the pattern, too."""
    from mutants.source import find, read_faults

    for fault in read_faults():
        find(fault)  # raises where the pattern is not there once


def test_every_package_is_listed_and_every_module_has_a_docstring():
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in SOURCES if p.name == "__init__.py"}
    expected = {"sbert_mini.cli" if name == "cli" else name for name in folders}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == expected
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path


def test_every_file_of_the_tree_is_packaged():
    """By the patterns of pyproject.toml; what is really in a wheel is looked at by `make check-wheel`."""
    settings = PYPROJECT["tool"]["setuptools"]
    taken = set()
    for package in settings["packages"]:
        folder = ROOT / settings["package-dir"].get(package, package.replace(".", "/"))
        taken |= {
            file for pattern in ("*.py", *settings["package-data"].get(package, ())) for file in folder.glob(pattern)
        }
    compiled = {ROOT / name for module in settings["ext-modules"] for name in (*module["sources"], *module["depends"])}
    tracked = subprocess.run(["git", "ls-files", "sbert_mini", "cli"], cwd=ROOT, capture_output=True, text=True)
    files = {ROOT / name for name in tracked.stdout.split()} or set(SOURCES)
    assert files - compiled <= taken
    assert not compiled & taken


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The sdist, and the wheel built from it."""
    out = tmp_path_factory.mktemp("dist")
    with FileLock(
        tmp_path_factory.getbasetemp().parent / "build.lock"
    ):  # a build writes into the tree, and workers share it
        done = subprocess.run(
            [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


@pytest.mark.wheel
def test_the_wheel_holds_the_tree_and_nothing_else(distributions):
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = [name for name in archive.namelist() if ".dist-info/" in name]
    tracked = subprocess.run(["git", "ls-files", "sbert_mini", "cli"], cwd=ROOT, capture_output=True, text=True)
    files = tracked.stdout.split() or [str(p.relative_to(ROOT)) for p in SOURCES]
    compiled = {name for name in held if name.endswith(".so")}
    assert len(compiled) == (library() is not None)  # the sdist has all that it is compiled from
    sources = {name for name in files if name.endswith((".cpp", ".h"))}
    assert held - compiled == {f"sbert_mini/{name}" if name.startswith("cli/") else name for name in files} - sources
    assert {Path(name).name for name in metadata} >= {"LICENSE", "NOTICE", "METADATA", "entry_points.txt"}
    models = [name for name in held if name.endswith(".onnx")]
    assert len(models) == 2
    assert wheel.stat().st_size < 44_000_000


@pytest.mark.wheel
def test_the_wheel_works_from_any_folder(distributions, tmp_path):
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")  # noqa: S202
    (tmp_path / "elsewhere").mkdir()
    script = "import sys; sys.path.insert(0, sys.argv.pop(1)); import sbert_mini; print(sbert_mini.__file__); "
    script += "from sbert_mini.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "site"), "encode", "a cat", "--offline"],
        capture_output=True, text=True, cwd=tmp_path / "elsewhere",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, line = done.stdout.splitlines()
    assert where.startswith(str(tmp_path / "site"))
    assert len(json.loads(line)["embedding"]) == 384


@pytest.mark.wheel
def test_the_sdist_can_be_built_from(distributions):
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "cli/main.py", "sbert_mini/py.typed", "sbert_mini/examples/collection.jsonl"} <= names


def test_constraints_are_what_is_installed_and_within_the_ranges():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    checked = 0
    for requirement in map(Requirement, wanted):
        if requirement.name == "sbert-mini":
            continue
        checked += 1
        pin = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), f"{requirement} and {pin}"
        # installed by `make fuzz` (not every platform has it) and `make check-integrations` (in environments of their own)
        if requirement.name not in ("atheris", "langchain-core", "llama-index-core", "chromadb", "llm"):
            assert version(requirement.name).partition("+")[0] == pin, requirement.name
    assert checked > 25


def test_public_names():
    assert sorted(sbert_mini.__all__) == sbert_mini.__all__
    for name in sbert_mini.__all__:
        assert getattr(sbert_mini, name) is not None
        assert name in dir(sbert_mini)
    assert version("sbert-mini") == sbert_mini.__version__
    with pytest.raises(AttributeError, match="nothing_such"):
        sbert_mini.nothing_such  # noqa: B018


def test_a_name_without_its_extra_says_which_one():
    script = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "onnx", "sentence_transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import sbert_mini
for name in ("MiniBert", "load"):
    try:
        getattr(sbert_mini, name)
    except sbert_mini.SbertMiniError as error:
        print(error)
from sbert_mini.errors import MissingExtraError
from sbert_mini.runtime.graph import _Builder
try:
    _Builder()
except MissingExtraError as error:
    print(error)
assert sbert_mini.Embedder and sbert_mini.SearchIndex
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line, extra in zip(lines, ("train", "train", "onnx"), strict=True):
        assert f"pip install 'sbert-mini[{extra}]'" in line
    assert lines[2].startswith("converting a model to ONNX needs the package onnx")


def test_a_command_without_its_extra_says_which_one():
    script = """
import sys
refused = sys.argv.pop(1).split(",")
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from sbert_mini.cli.main import main
main()
"""
    for refused, command, extra in (
        ("scipy", ["bench", "sts", "--sets", "builtin"], "bench"),
        ("matplotlib", ["bench", "sts", "--sets", "builtin", "--report", "/nowhere/at/all"], "bench"),
        ("torch", ["train", str(ROOT / "sbert_mini" / "examples" / "recipes" / "sentiment.toml")], "train"),
        ("torch", ["bench", "pairs", "-i", str(ROOT / "constraints.txt"), "--n", "20"], "train"),
        ("sentence_transformers", ["bench", "sts", "--sets", "builtin", "--peer", "all-MiniLM-L6-v2"], "train"),
    ):
        done = subprocess.run([sys.executable, "-c", script, refused, *command], capture_output=True, text=True)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1, done.stderr
        assert last.startswith("sbmini: error: ")
        assert f"pip install 'sbert-mini[{extra}]'" in last, last
        assert "Traceback" not in done.stderr


def test_exit_codes_belong_to_the_exceptions():
    assert (SbertMiniError.exit_code, UsageError.exit_code, MissingExtraError.exit_code) == (1, 2, 1)
    tree = ast.parse((ROOT / "sbert_mini" / "errors.py").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    drawn = set(re.findall(r"\w+Error", (ast.get_docstring(tree) or "")))
    assert classes == drawn


# --- documents -------------------------------------------------------------------------------------------------------


def test_documents_figures_are_those_measured_and_their_commands_those_of_help():
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import docs
    finally:
        sys.path.remove(str(ROOT))
    texts = docs.documents()
    assert docs.updated(texts) == texts
    faked = {path: text.replace("| times ", "| times  ") for path, text in texts.items()}
    assert faked[ROOT / "README.md"] != texts[ROOT / "README.md"]
    assert docs.updated(faked) == texts


def test_make_lists_its_verbs():
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True).stdout
    for verb in (
        "demo",
        "test",
        "lint",
        "bench",
        "check-files",
        "check-frameworks",
        "check-wheel",
        "check-long",
        "wheels",
        "docs",
        "clean",
    ):
        assert re.search(rf"^{verb}\s", listed, re.M), verb
