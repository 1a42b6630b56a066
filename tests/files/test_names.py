"""Names from files: what is allowed, that nothing outside is written or deleted, and that one module makes the paths."""

import ast
import json
import os
from pathlib import Path

import pytest

import sbert_mini
from sbert_mini import Embedder, IndexWriter
from sbert_mini.errors import CorruptIndexError, CorruptModelError, ModelNotFoundError
from sbert_mini.files import names
from sbert_mini.model.heads import HeadConfig, head_names, read_head
from sbert_mini.model.layout import head_folder, read_layout
from sbert_mini.model.registry import resolve_noted
from sbert_mini.model.weights import weight_files
from sbert_mini.runtime.graph_record import read_record
from sbert_mini.runtime.graphs import find

OUTSIDE = ["/tmp", "..", "../x", "a/../../x", "a/..", "x\0", "x\n", "*", "a/*", "[a]", "~", "a//b", "/", 7, None, ["a"]]  # noqa: S108
RULES = {name: rule for name, rule in vars(names).items() if isinstance(rule, names.NameRule)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
def test_no_rule_lets_a_name_lead_out_of_its_folder(rule, name, tmp_path):
    with pytest.raises(CorruptIndexError, match=r"is damaged: .* must be .*, and one is"):
        names.path_in(tmp_path, name, RULES[rule], tmp_path / "source.json", CorruptIndexError)


def test_usual_names_are_paths_in_the_folder(tmp_path):
    for rule, name in (
        (names.SEGMENT, "000001"),
        (names.MANIFEST, "generations/000001.json"),
        (names.SEGMENT_FILE, "id_index.npy"),
        (names.TASK, "sick_e-1"),
        (names.MODULE, ""),
        (names.MODULE, "1_Pooling"),
        (names.WEIGHTS, "model-00001-of-00002.safetensors"),
    ):
        assert names.path_in(tmp_path, name, rule, tmp_path, CorruptIndexError) == tmp_path / name


def test_a_module_outside_of_the_model_is_refused(make_model, tmp_path):
    model = make_model()
    modules = [{"type": "Transformer", "path": ""}, {"type": "Pooling", "path": "1_Pooling"}]
    for name in ("..", str(tmp_path), "*", "a\0"):
        modules[1]["path"] = name
        (model / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(CorruptModelError, match="path must be"):
            read_layout(model)


def test_weights_outside_of_the_model_are_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for name in ("../model.safetensors", "/etc/x.safetensors", "*.safetensors", "a\0.safetensors"):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(CorruptModelError, match=r"must be a path|a file of weights must be"):
            weight_files(tmp_path)
    for content in ({}, {"weight_map": ["a"]}):
        index.write_text(json.dumps(content))
        with pytest.raises(CorruptModelError, match="weight_map must be an object"):
            weight_files(tmp_path)


def test_a_head_has_the_name_of_its_folder(make_model, tmp_path):
    model = make_model()
    head = HeadConfig(str(tmp_path / "outside"), "siamese", "similarity", 28)
    for folder in ("task", "*"):
        head.write(model / "heads" / folder)
    assert head_names(model) == ["task"]
    with pytest.raises(CorruptModelError, match="must have the name of its folder, 'task'"):
        read_head(model, "task")
    with pytest.raises(ModelNotFoundError):
        read_head(model, "*")
    with pytest.raises(CorruptModelError, match="a task's name must be"):
        head_folder(model, "../x")


def test_a_record_that_names_another_file_is_not_used(converted_model, tmp_path):
    folder = converted_model() / "onnx"
    record = read_record(folder)
    (tmp_path / "x.onnx").write_bytes((folder / "model.onnx").read_bytes())
    record["graphs"]["fp32"]["file"] = str(tmp_path / "x.onnx")
    (folder / "sbmini.json").write_text(json.dumps(record))
    assert read_record(folder) is None


@pytest.mark.parametrize("touched", [False, True])
def test_graphs_are_not_written_through_a_link(converted_model, tmp_path, monkeypatch, touched):
    monkeypatch.setenv("SBMINI_CACHE_DIR", str(tmp_path / "cache"))
    model, outside = converted_model(), tmp_path / "outside"
    (model / "onnx").rename(outside)
    (model / "onnx").symlink_to(outside)
    if touched:  # the record would be brought up to date
        os.utime(model / "model.safetensors", (1, 1))
    else:
        (outside / "model_int8.onnx").unlink()
    before = {file: file.read_bytes() for file in outside.iterdir()}
    assert (find(model).file.parent == model / "onnx") is touched
    assert {file: file.read_bytes() for file in outside.iterdir()} == before


@pytest.fixture
def index(tmp_path, default_embedder):
    path = tmp_path / "my.index"
    IndexWriter(path, default_embedder).create(["text one", "text two", {"text": "text three", "id": "c"}])
    return path


def test_a_change_of_an_index_leaves_other_files_alone(index, tmp_path):
    (tmp_path / "victim").mkdir()
    victim = tmp_path / "victim" / "000009.json"
    victim.write_text("{}")
    foreign = [
        index / "generations" / "thesis.docx",
        index / ".thesis.part",
        index / "segments" / "*" / "checksums.json",
    ]
    for file in foreign:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    (index / "segments" / "000099").symlink_to(tmp_path / "victim")
    (index / "faiss" / "000001.faiss").symlink_to(victim)
    IndexWriter(index).delete(["c"])
    IndexWriter(index).compact()
    assert all(file.exists() for file in (*foreign, victim))
    assert (index / "segments" / "000099").is_symlink()


def test_the_lock_is_not_a_link(index, tmp_path):
    victim = tmp_path / "keys.kdbx"
    victim.write_text("secret")
    (index / "LOCK").unlink(missing_ok=True)
    (index / "LOCK").symlink_to(victim)
    with pytest.raises(CorruptIndexError, match="LOCK is a symbolic link"):
        IndexWriter(index).delete(["c"])
    assert victim.read_text() == "secret"


def test_a_model_that_a_file_names_is_not_fetched_and_not_in_its_folder(tmp_path, make_model, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="pass -m no-such-org/model to fetch it"):
        resolve_noted("no-such-org/model", tmp_path)
    with pytest.raises(ModelNotFoundError, match="switched off"):
        resolve_noted("no-such-org/model", tmp_path, offline=True)
    with pytest.raises(ModelNotFoundError, match="there is no model"):
        resolve_noted("no-such-org/model@../../x", tmp_path)
    model = make_model()
    monkeypatch.chdir(model.parent)
    assert resolve_noted(str(model), tmp_path / "index") == model
    with pytest.raises(ModelNotFoundError, match="lies in the index itself"):
        resolve_noted(str(model), model.parent)
    with pytest.raises(ModelNotFoundError, match="not named by its absolute path"):
        resolve_noted(model.name, tmp_path / "index")
    assert resolve_noted("sbert-mini", None).name == "sbert-mini"


def test_an_index_may_not_bring_its_model(index, tmp_path, make_model):
    model = make_model()
    model.rename(index / "model")
    IndexWriter(tmp_path / "other", Embedder(index / "model")).create(["the cat"])
    (index / "model").rename(tmp_path / "other" / "model")
    from sbert_mini import SearchIndex

    with pytest.raises(ModelNotFoundError):
        SearchIndex(tmp_path / "other").search("cat")


READERS = {"read_json", "read_modules", "read_sealed_json", "read_checked_json", "loads", "load"}
JOINS = {"joinpath", "with_name", "with_stem", "with_suffix", "glob", "rglob", "Path"}
ALLOWED = {"path_in", "segment_folder", "module_folder", "head_folder", "cache_files", "_manifest_path", "len", "int"}


def _is_from_a_file(node, tainted):
    """Whether an expression holds a value that a reader returned: a reader's call, a name that got one, or a key of an object.

    What one of `ALLOWED` returns is a checked path, whatever it was given.
    """
    if isinstance(node, ast.Call):
        called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if called in ALLOWED:
            return False
        if called in READERS:
            return True
        if (
            called == "get"
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and _is_from_a_file(node.func, tainted)
        ):
            return True
    if isinstance(node, ast.Name):
        return node.id in tainted
    if isinstance(node, ast.Compare):
        return False
    return any(_is_from_a_file(child, tainted) for child in ast.iter_child_nodes(node))


def paths_from_files(source):
    """Return the lines on which a function joins, globs or makes a path with a value that a reader returned.

    A name is tainted by an assignment, a loop or a comprehension over a tainted value, until nothing new is. Parameters called
    `entry`, `manifest`, `pointer`, `record` or `module` hold such values in every function.
    """
    lines = set()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        arguments = [*function.args.args, *function.args.kwonlyargs]
        tainted = {a.arg for a in arguments} & {"entry", "manifest", "pointer", "record", "module"}
        before = -1
        while before != len(tainted):
            before = len(tainted)
            for node in ast.walk(function):
                value, targets = None, []
                if isinstance(node, ast.Assign):
                    value, targets = node.value, node.targets
                elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
                    value, targets = node.value, [node.target]
                elif isinstance(node, (ast.For, ast.comprehension)):
                    value, targets = node.iter, [node.target]
                if value is not None and _is_from_a_file(value, tainted):
                    tainted |= {
                        n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name) and n.id != "self"
                    }
        for node in ast.walk(function):
            parts = []
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                parts = [node.right]
            elif isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                parts = [*node.args, *(k.value for k in node.keywords)] if called in JOINS else []
            if any(_is_from_a_file(part, tainted) for part in parts):
                lines.add(node.lineno)
    return sorted(lines)


def test_what_the_reader_of_the_source_finds():
    for body in (
        'x = read_json(p)\n    return p / x["a"]',
        'for e in read_sealed_json(p)["s"]:\n        p.glob(f"{e}.*")',
        'return Path(json.loads(p)["file"])',
        'return p / "a" / str(entry.get("path", ""))',
    ):
        assert paths_from_files(f"def f(p, entry):\n    {body}\n"), body
    assert not paths_from_files('def f(p, entry):\n    return path_in(p, entry["name"], A, p, E) / "x"\n')


def test_one_module_makes_paths_of_names_from_files():
    """Rooms in which strangers' files are read: a path that is made there with a value from one goes through `files.names`."""
    package = Path(sbert_mini.__file__).parent
    found = {}
    for room in (
        "files",
        "model",
        "text",
        "encoder",
        "runtime",
        "search",
        "scale",
        "evaluation",
        "training",
        "recipes",
        "cli",
    ):
        for file in sorted((package / room).glob("*.py")):
            if file.name != "names.py" and (lines := paths_from_files(file.read_text("utf-8"))):
                found[f"{room}/{file.name}"] = lines
    assert found == {}
