"""Generated command lines over all commands and options: none ends in a traceback, and no option is dropped silently.

    python -m tests.generated.commands --count 2600 --seed 0

Commands and options are those of the application itself, so that a new option is tried as soon as there is one. Each line runs in
this process, in a folder of its own with tiny files and models. Laws that are checked:

* A line ends with an exit code that the package defines, without a traceback; where it fails, its last line on stderr is one
  line of error.
* Each option, given with a value that is right, changes what is printed, a file, or the error against the same line without
  it (`NEUTRAL` names those that decide only how fast it goes, or what may be fetched).
* Each option that takes one value is an error when given twice.
"""

import argparse
import hashlib
import io
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from sbert_mini.cli import main as cli
from typer.core import TyperGroup

NEUTRAL = {
    "--threads",
    "--batch-size",
    "--offline",
    "--debug",
    "--raw",
    "--help",
    "--seed",
    "--workers",
    "--address",
    "--exact",
    "--filter-timeout",
    "--yes",
    "--checksum",
    "--allow-removals",
    "--encoding",
    "--full",
}
"""A right value of these may change nothing that can be seen here (exact search of a few rows finds what the index finds); a
wrong one and a second one still do."""
ARGUMENTS_ONLY = {
    ("bench", "speed"),
    ("bench", "search"),
    ("bench", "pairs"),
    ("bench", "audit"),
    ("index", "push"),
    ("train",),
    ("mine",),
    ("cluster",),
    ("explain",),
    ("map",),
}
"""Commands that take too long, or need a server: their lines end at an error in the arguments."""
ENDLESS = {"--watch"}
"""Options with which a command goes on until it is interrupted: they are not given."""
EXIT_CODES = {0, 1, 2, 4}

BASES: dict[tuple[str, ...], list[str]] = {
    (): ["models", "list"],
    ("encode",): ["-i", "t.csv"],
    ("search",): ["index", "the cat sleeps"],
    ("dedup",): ["-i", "t.csv"],
    ("predict",): ["-m", "heads", "-t", "mood", "-i", "t.csv"],
    ("soup",): ["model", "model2", "-o", "soup"],
    ("train",): ["missing.toml"],
    ("mine",): ["missing.csv", "-o", "triplets.csv"],
    ("explain",): ["the cat sleeps"],  # the second text is missing
    ("cluster",): ["missing.csv"],
    ("map",): ["missing.csv", "-o", "map.html"],
    ("mcp",): ["no.index"],
    ("index", "create"): ["new", "-i", "t.csv"],
    ("index", "add"): ["index", "-i", "fresh.csv"],
    ("index", "update"): ["index", "-i", "more.csv"],
    ("index", "delete"): ["index", "1"],
    ("index", "compact"): ["index"],
    ("index", "push"): ["missing", "milvus://127.0.0.1:1/x"],
    ("index", "info"): ["index"],
    ("index", "verify"): ["index"],
    ("index", "list"): ["index"],
    ("index", "get"): ["index", "1"],
    ("index", "export"): ["index", "-o", "e.jsonl"],
    ("index", "merge"): ["all", "index", "index2"],
    ("index", "migrate"): ["index", "-m", "model2"],
    ("index", "sync"): ["docs.index", "notes"],
    ("reduce", "fit"): ["x.npy", "-d", "3", "-o", "new.safetensors"],
    ("reduce", "apply"): ["pca.safetensors", "x.npy", "-o", "new.npy"],
    ("models", "list"): [],
    ("models", "info"): ["model"],
    ("models", "convert"): ["model"],
    ("demo",): ["demo.index"],
    ("doctor",): ["-m", "model"],
    ("serve",): ["no.index"],  # refused: a server that starts would not end
    ("recipes", "list"): [],
    ("recipes", "show"): ["paraphrase"],
    ("bench", "sts"): ["--pairs", "p.tsv", "--resamples", "100"],
    ("bench", "speed"): ["surplus"],
    ("bench", "search"): ["surplus"],
    ("bench", "pairs"): ["surplus"],
    ("bench", "audit"): ["surplus"],
}
RIGHT: dict[str, list[list[str]]] = {
    "--input": [["t.jsonl"]],
    "--output": [["o.jsonl"], ["o.npy"], ["o.csv"], ["o.parquet"], ["o"]],
    "--model": [["model2"]],
    "--graph": [["fp32"]],
    "--precision": [["int8"], ["ubinary"]],
    "--dim": [["5"]],
    "--prompt": [["red: "]],
    "--input-format": [["txt"]],
    "--text-column": [["body"]],
    "--id-column": [["year"]],
    "--max-row-bytes": [["9"]],
    "--truncation": [["error"], ["chunk"]],
    "--passage-tokens": [["9"]],
    "--overlap": [["3"]],
    "--duplicates": [["d.jsonl"]],
    "--threshold": [["1"]],
    "--top-k": [["1"]],
    "--min-score": [["0.999"]],
    "--filter": [["year > 2003"]],
    "--column-type": [["year=text"]],
    "--pca": [["3"]],
    "--kind": [["HNSW32"]],
    "--vectors": [["v.npy"]],
    "--ids-from": [["ids.txt"]],
    "--whiten": [[]],
    "--pairs": [["q.tsv"]],
    "--columns": [["body"]],
    "--task": [["same"]],
    "--runtime": [["fp32"]],
    "--resamples": [["101"]],
    "--sets": [["builtin"]],
    "--pooling": [["mean"]],
    "--report": [["report"]],
    "--text-separator": [["; "]],
    "--limit": [["1"]],
    "--include": [["*.txt"]],
    "--exclude": [["*.txt"]],
    "--as": [["papers"]],
    "--like": [["1"]],
    "--delimiter": [[";"]],
}
"""Right values of options, by the long name; of the others they come from their type."""
AROUND: dict[tuple[tuple[str, ...], str], tuple[list[str], list[str]]] = {
    (("encode",), "--text-separator"): (["-i", "t.csv", "--text-column", "text", "--text-column", "body"], ["; "]),
    (("dedup",), "--text-separator"): (
        ["-i", "near.csv", "--duplicates", "d.jsonl", "--text-column", "text", "--text-column", "body"], ["; "],
    ),
    (("encode",), "--id-column"): (["-i", "noid.csv"], ["year"]),
    (("dedup",), "--id-column"): (["-i", "noid.csv", "--duplicates", "d.jsonl"], ["year"]),
    (("search",), "--passages"): (["index", "the cat sleeps", "--json"], []),
    (("search",), "--quiet"): (["index", "the dog runs " * 20], []),
    (("encode",), "--on-error"): (["-i", "bad.csv", "-o", "o.npy"], ["skip"]),
    (("encode",), "--rejects"): (["-i", "bad.csv", "-o", "o.npy", "--on-error", "skip"], ["r.jsonl"]),
    (("encode",), "--resume"): (["-i", "t.csv"], []),
    (("encode",), "--engine"): (["-i", "t.csv"], ["ray"]),
    (("dedup",), "--truncation"): (["-i", "t.csv"], ["error"]),
    (("dedup",), "--graph"): (["-i", "near.csv", "--duplicates", "d.jsonl", "--threshold", "0.01"], ["fp32"]),
    (("dedup",), "--model"): (["-i", "near.csv", "--duplicates", "d.jsonl", "--threshold", "0.01"], ["model2"]),
    (("dedup",), "--threshold"): (["-i", "near.csv"], ["1"]),
    (("predict",), "--columns"): (["-m", "heads", "-t", "mood", "-i", "t.csv"], ["body"]),
    (("predict",), "--task"): (["-m", "heads", "the cat", "a dog"], ["same"]),
    (("predict",), "--model"): (["-t", "mood", "-i", "t.csv"], ["heads"]),
    (("index", "create"), "--prompt"): (["new", "-i", "t.csv"], ["red: "]),
    (("search",), "--input"): (["index"], ["q.csv"]),
    (("search",), "--exact"): (["index", "the cat sleeps"], []),
    (("search",), "--fail-if-empty"): (["index", "the cat sleeps", "--min-score", "1", "--filter", "year < 0"], []),
    (("index", "delete"), "--filter"): (["index"], ["year > 2003"]),
    (("index", "delete"), "--ids-from"): (["index"], ["ids.txt"]),
    (("index", "compact"), "--pca"): (["index", "--kind", "auto"], ["3"]),
    (("bench", "sts"), "--data"): (["--sets", "stsb_test"], ["."]),
    (("bench", "sts"), "--columns"): (["--pairs", "p.tsv", "--resamples", "100"], ["sentence2,sentence1,other"]),
    (("bench", "sts"), "--pooling"): (["--pairs", "p.tsv", "--resamples", "100", "--json"], ["mean"]),
    (("index", "export"), "--output"): (["index"], ["e.parquet"]),
    (("search",), "--like"): (["index"], ["1"]),
    (("search",), "--columns"): (["index", "the cat sleeps"], ["year"]),
    (("search",), "--color"): (["index", "the cat sleeps"], ["always"]),
    (("search",), "--full"): (["index", "the cat sleeps", "--color", "always"], []),
    (("encode",), "--keep-columns"): (["-i", "t.csv"], ["year"]),
    (("index", "merge"), "--on-conflict"): (["all", "index", "index"], ["first"]),
    (("index", "migrate"), "--model"): (["index"], ["model2"]),
    (("index", "create"), "--resume"): (["left", "-i", "t.csv"], []),
    (("index", "create"), "--overwrite"): (["index", "-i", "fresh.csv"], []),
    (("soup",), "--output"): (["model", "model2"], ["soup"]),
}  # fmt: skip
for _command in ("create", "add", "update"):
    _first = ["new"] if _command == "create" else ["index"]
    _key = ("index", _command)
    AROUND[_key, "--on-error"] = ([*_first, "-i", "bad.csv"], ["skip"])
    AROUND[_key, "--rejects"] = ([*_first, "-i", "bad.csv", "--on-error", "skip"], ["r.jsonl"])
    AROUND[_key, "--text-separator"] = (
        [*_first, "-i", "fresh.csv", "--text-column", "text", "--text-column", "body"],
        ["; "],
    )
"""A line on which a right value of an option shows, where the command's base does not do: the line, and the value."""
ODD = {
    "integer": ["-1", "0", "99999999999999999999999", "NaN", "", "1e3", "1.5", "日本"],
    "float": ["NaN", "inf", "-1", "", "1e999", "x"],
    "path": ["", "missing.xyz", "folder", "日本.csv", "no/such/folder/x.npy", "\udcff.csv"],
    "text": ["", " ", "日本🎉", "a\nb", "NaN", "x" * 3000, "-", "'; drop table rows", "\udcff"],
    "choice": ["bogus", "", "INT8"],
}
KINDS = {
    "int": "integer",
    "int range": "integer",
    "float": "float",
    "float range": "float",
    "str": "text",
    "path": "path",
}
"""The types of typer's parameters, by kind."""
TOO_LONG = {("--rounds", "99999999999999999999999"), ("--resamples", "99999999999999999999999")}
STDIN = ["", "the cat\na dog\n"]


@dataclass(frozen=True)
class Option:
    """An option of a command, as the application declares it."""

    command: tuple[str, ...]
    names: tuple[str, ...]
    kind: str
    choices: tuple[str, ...]
    multiple: bool

    @property
    def name(self) -> str:
        return next((name for name in self.names if name.startswith("--")), self.names[0])

    def right(self) -> list[list[str]]:
        """Return ways to give it with a right value."""
        if self.kind == "flag":
            return [[name] for name in self.names if name.startswith("--")]
        values = RIGHT.get(self.name) or [
            [v] for v in (self.choices or {"integer": "3", "float": "0.5"}.get(self.kind, ["x"]))
        ]
        return [[self.name, *value] for value in values]

    def odd(self) -> list[list[str]]:
        """Return ways to give it with a value that is odd, or to leave the value out."""
        if self.kind == "flag":
            return [[f"{self.name}=x"]]
        odd = [[self.name, value] for value in ODD[self.kind] if (self.name, value) not in TOO_LONG]
        return [*odd, [self.name]]


@dataclass(frozen=True)
class Line:
    """A command line, and what is known of it: the option that it is about and how that is given."""

    words: tuple[str, ...]
    about: Option | None = None
    how: str = ""
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a line did."""

    code: int | None
    stdout: str
    stderr: str
    files: tuple[tuple[str, str], ...]
    problem: str = ""


def options() -> Iterator[Option]:
    """Yield the options of all commands."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[Option]:
        for parameter in command.params:
            if parameter.param_type_name != "option" or parameter.name in ("install_completion", "show_completion"):
                continue
            if ENDLESS.intersection(parameter.opts):
                continue
            choices = tuple(str(getattr(c, "value", c)) for c in getattr(parameter.type, "choices", ()) or ())
            kind = "flag" if parameter.is_flag else "choice" if choices else KINDS[parameter.type.name]
            yield Option(words, (*parameter.opts, *parameter.secondary_opts), kind, choices, parameter.multiple)
        if isinstance(command, TyperGroup):
            for inner, found in command.commands.items():
                yield from walk(found, (*words, inner))

    yield from walk(typer.main.get_command(cli.app), ())


def _without(words: list[str], option: Option) -> list[str]:
    """Return the words of a line without an option and its value."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
            continue
        if word in option.names:
            skip = option.kind != "flag"
            continue
        kept.append(word)
    return kept


def systematic() -> Iterator[Line]:
    """Yield for each option the lines that give it: rightly, oddly, and twice."""
    for option in options():
        around, value = AROUND.get((option.command, option.name), (BASES[option.command], None))
        rest = _without(around, option)
        ways = option.right() if value is None else [[option.name, *value]]

        def line(given: list[str], rest: list[str] = rest, option: Option = option) -> tuple[str, ...]:
            return (*option.command, *rest, *given) if option.command else (*given, *rest)

        without = line([])
        for way in ways:
            yield Line(line(way), option, "right", without)
        for way in option.odd():
            yield Line(line(way), option, "odd")
        if ways:
            again = option.right()[-1] if option.kind != "flag" else ways[-1]
            yield Line(line([*ways[0], *again]), option, "twice", line(ways[0]))


def combined(rng: random.Random) -> Iterator[Line]:
    """Yield lines of a command with several of its options, at random, without end."""
    every = list(options())
    commands = [command for command in BASES if command]
    while True:
        command = rng.choice(commands)
        own = [option for option in every if option.command == command]
        words = list(BASES[command])
        if rng.random() < 0.15 and words and command not in ARGUMENTS_ONLY:
            words[rng.randrange(len(words))] = rng.choice(ODD["path"] + ODD["text"])
        for option in rng.sample(own, min(len(own), rng.randint(1, 4))):
            ways = option.right() if rng.random() < 0.7 else option.odd()
            words = [*_without(words, option), *rng.choice(ways)]
        yield Line((*command, *words))


def make_files(folder: Path) -> None:
    """Write the files and models that the lines use."""
    import torch

    from sbert_mini import Embedder
    from sbert_mini.encoder.bert import MiniBert
    from sbert_mini.model.heads import HeadConfig
    from sbert_mini.model.layout import BertConfig
    from sbert_mini.training.heads import Head

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".,?:;", *map(chr, range(97, 123))]
    words += [f"##{chr(c)}" for c in range(97, 123)] + ["the", "cat", "dog", "sleeps", "red", "bread", "rises", "runs"]
    for seed, name in enumerate(("model", "model2", "heads")):
        torch.manual_seed(seed)
        path = folder / name
        config = BertConfig(
            vocab_size=len(words), hidden_size=28, num_hidden_layers=1, num_attention_heads=7, intermediate_size=44,
            max_position_embeddings=37, initializer_range=0.2,
        )  # fmt: skip
        MiniBert(config).save_pretrained(path)
        (path / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
        settings = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 31}
        (path / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
        if name == "heads":
            Head(HeadConfig("mood", "single", "classification", 28, ("bad", "good"), columns=("text",))).save(path)
            Head(HeadConfig("same", "siamese", "regression", 28, columns=("text", "body"))).save(path)
        embedder = Embedder(path, threads=1)
    embedder = Embedder(folder / "model", threads=1)
    rows = [
        "id,text,body,year",
        "1,the cat sleeps,red bread,2001",
        "2,a dog runs,the dog,2004",
        "3,bread rises,a cat,2005",
    ]
    rows.append(f"4,{'the dog runs ' * 20},long,2006")
    (folder / "t.csv").write_text("\n".join(rows) + "\n", "utf-8")
    (folder / "more.csv").write_text(
        "id,text,body,year\n7,the red cat,a dog,2009\n1,red dogs,bread,2010\n8,the dog,a cat,2011\n"
    )
    rows[1:] = [f"{int(row[0]) + 10}{row[1:]}" for row in rows[1:]]
    (folder / "fresh.csv").write_text("\n".join(rows) + "\n", "utf-8")
    (folder / "noid.csv").write_text("text,year\nthe cat,2001\na dog,2002\nthe  CAT,2003\n")
    (folder / "bad.csv").write_text("id,text,body,year\n7,the red cat,a dog,2009\n8,,x,1\n9,short\n10,a dog,b,2\n")
    (folder / "t.jsonl").write_text('{"id": 5, "text": "the red dog", "year": 2001}\n{"id": 6, "text": "bread"}\n')
    (folder / "notes").mkdir()
    (folder / "notes" / "a.md").write_text("# bread\n\nbread rises\n\n" + "the cat sleeps. " * 9)
    (folder / "notes" / "b.txt").write_text("a dog runs\n")
    (folder / "t.txt").write_text("the cat\na dog\n\nthe  CAT\n")
    (folder / "near.csv").write_text(
        "text,body\nthe cat sleeps,a\nthe cat sleeps a,a\nThe cat  sleeps,A\nthe cat runs,b\n"
    )
    (folder / "q.csv").write_text("text\nbread\na red dog\n")
    (folder / "ids.txt").write_text("2\n3\n")
    pairs = [
        f"{a} {b}\t{b} {a} {a}\t{i % 5}\t{-i}"
        for i, (a, b) in enumerate((a, b) for a in words[-8:] for b in words[-8:])
    ]
    (folder / "p.tsv").write_text("sentence1\tsentence2\tscore\tother\n" + "\n".join(pairs[:30]) + "\n")
    (folder / "q.tsv").write_text("sentence1\tsentence2\tscore\tother\n" + "\n".join(pairs[20:]) + "\n")
    (folder / "folder").mkdir()
    (folder / "left.partial").mkdir()
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((40, 9)).astype(np.float32))
    np.save(folder / "v.npy", embedder.encode(["red", "dog", "cat", "bread"]))
    for arguments in (
        ["index", "create", "index", "-i", "t.csv", "-m", str(folder / "model"), "-q"],
        ["index", "create", "index2", "-i", "fresh.csv", "-m", str(folder / "model"), "-q"],
        ["reduce", "fit", "x.npy", "-d", "4", "-o", "pca.safetensors", "-q"],
    ):
        done = run_line(arguments, folder)
        if done.code:
            raise RuntimeError(done.stderr)


@contextmanager
def _process(words: list[str], folder: Path, stdin: str) -> Iterator[tuple[Path, Path]]:
    """Give the process a command line's arguments, streams and folder, and put everything back afterwards."""
    argv, environment, directory = sys.argv, dict(os.environ), Path.cwd()
    streams = sys.stdin, sys.stdout, sys.stderr
    ours = logging.getLogger("sbert_mini")
    state = ours.handlers[:], ours.level, ours.propagate
    with tempfile.TemporaryDirectory() as place:
        paths = [Path(place) / name for name in ("stdin", "stdout", "stderr")]
        paths[0].write_text(stdin, "utf-8")
        try:
            with (
                paths[0].open(encoding="utf-8") as given,
                paths[1].open("w", encoding="utf-8", errors="backslashreplace") as out,
                paths[2].open("w", encoding="utf-8", errors="backslashreplace") as err,
            ):
                sys.argv = ["sbmini", *words]
                sys.stdin, sys.stdout, sys.stderr = given, out, err
                os.chdir(folder)
                notes = logging.StreamHandler(err)
                notes.setFormatter(logging.Formatter("sbmini: %(message)s"))
                ours.handlers, ours.propagate = [notes], False
                yield paths[1], paths[2]
        finally:
            sys.argv = argv
            sys.stdin, sys.stdout, sys.stderr = streams
            os.chdir(directory)
            os.environ.clear()
            os.environ.update(environment)
            ours.handlers, level, ours.propagate = state
            ours.setLevel(level)


def run_line(words: list[str], folder: Path, stdin: str = "") -> Outcome:
    """Run a command line in this process, in a folder, and return what it did."""
    problem, code = "", None
    with _process(words, folder, stdin) as (out, err):
        try:
            code = cli.run()
        except BaseException:  # what `run` lets through is a traceback for the user
            problem = traceback.format_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        stdout, stderr = (path.read_text("utf-8", "replace").replace(str(folder), "FOLDER") for path in (out, err))
    files = tuple(
        (str(file.relative_to(folder)), hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    )
    if not problem:
        problem = _problem(code, stderr)
    return Outcome(code, stdout, stderr, files, problem)


def _problem(code: int | None, stderr: str) -> str:
    if "Traceback" in stderr:
        return stderr
    if code not in EXIT_CODES:
        return f"exit code {code}"
    errors = [line for line in stderr.splitlines() if line.startswith("sbmini: error: ")]
    asked = stderr.startswith("Usage:")
    if code == 2 and not asked and (len(errors) != 1 or not stderr.endswith(errors[0] + "\n")):
        return f"exit code 2, and stderr does not end in one line of error: {stderr}"
    return ""


class Runner:
    """Runs lines, each in a fresh copy of the files, and remembers the outcomes of those without an option."""

    def __init__(self, folder: Path) -> None:
        self._files = folder / "files"
        self._place = folder / "place"
        self._files.mkdir()
        self._known: dict[tuple[str, ...], Outcome] = {}
        os.environ.update(SBMINI_CACHE_DIR=str(folder / "cache"), SBMINI_MODEL="model", HF_HUB_OFFLINE="1")
        make_files(self._files)

    def run(self, words: tuple[str, ...], stdin: str = STDIN[1]) -> Outcome:
        shutil.rmtree(self._place, ignore_errors=True)
        shutil.copytree(self._files, self._place)
        return run_line(list(words), self._place, stdin)

    def known(self, words: tuple[str, ...]) -> Outcome:
        if words not in self._known:
            self._known[words] = self.run(words)
        return self._known[words]


def check(count: int, seed: int, folder: Path, *, whole: bool) -> tuple[Counter[str], list[str]]:
    """Run lines and return what they gave, counted, and what is wrong.

    Args:
        count: lines.
        seed: of their choice.
        folder: an empty one.
        whole: first all that concern a single option, and check that each option changes something; otherwise a sample.
    """
    rng = random.Random(seed)
    lines = list(systematic())
    if whole and len(lines) > count:
        raise ValueError(f"all options take {len(lines)} lines; count must be that at least, and is {count}")
    if not whole:
        lines = rng.sample(lines, count * 2 // 3)
    for line in combined(rng):
        if len(lines) >= count:
            break
        lines.append(line)
    runner = Runner(folder)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    changed: dict[Option, bool] = {}
    for line in lines:
        outcome = runner.run(line.words, io.StringIO(rng.choice(STDIN)).getvalue() if not line.about else STDIN[1])
        counts[f"exit code {outcome.code}"] += 1
        if outcome.problem:
            wrong.append(f"{list(line.words)}: {outcome.problem}")
        option = line.about
        if option is None:
            continue
        if line.how == "twice" and not option.multiple and "is given 2 times" not in outcome.stderr:
            wrong.append(f"{list(line.words)}: given twice, and no error")
        if line.how == "right":
            same = runner.known(line.without)
            differs = (same.code, same.stdout, same.stderr, same.files) != (
                outcome.code, outcome.stdout, outcome.stderr, outcome.files,
            )  # fmt: skip
            changed[option] = changed.get(option, False) or differs
    if whole:
        for option, did in changed.items():
            if not did and option.name not in NEUTRAL and option.command not in ARGUMENTS_ONLY:
                wrong.append(f"{' '.join(option.command)} {option.name} changes nothing")
        counts["options"] = len(changed)
        counts["options that change something when given rightly"] = sum(changed.values())
    return counts, wrong


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts, wrong = check(arguments.count, arguments.seed, Path(folder), whole=True)
    for name, number in sorted(counts.items()):
        print(f"{number:6} {name}")
    print(f"{arguments.count} lines in {time.monotonic() - start:.0f} s, {len(wrong)} faults")
    for fault in wrong:
        print(fault)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    _main()
