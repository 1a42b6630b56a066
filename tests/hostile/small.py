"""Hostile tokenizers, and small models: a pooling and Dense modules behind a tiny encoder."""

import json
import random
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.hostile import kinds
from tests.native import fuzz, messages

_TANH, _IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
TEXTS = [
    "the cat sleeps",
    "unaffable [MASK] [SEP] \u00e9\u4e2d\U0001f600 \u202e",
    "",
    "a" * 500,
    "##a \x00 \ud7ff \ufffd",
    "the cat " * 400,
]
TOKENS = [
    "",
    " ",
    "[CLS]",
    "##",
    "a",
    "the",
    "\x00",
    "\u202e",
    "\U0001f600",
    "x" * 300,
    "a b",
    "[UNK]",
    "\u0301",
    "\u00df",
    "##the",
]


def make_bases(folder: Path) -> None:
    """Write a model with a tokenizer.json, and one with two Dense modules, without graphs."""
    from tests.conftest import _write_model

    modules = [
        {"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": "mean"},
        {
            "kind": "Dense",
            "in_features": 28,
            "out_features": 12,
            "bias": True,
            "activation_function": "torch.nn.modules.activation.Tanh",
        },
        {
            "kind": "Dense",
            "in_features": 12,
            "out_features": 6,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
        {"kind": "Normalize"},
    ]
    (folder / "dense").mkdir()
    _write_model(folder / "dense", seed=5, modules=modules)
    from sbert_mini.runtime.graphs import find

    shutil.copytree(folder / "models" / "0", folder / "tokenized")
    if not (folder / "tokenized" / "tokenizer.json").exists():
        fuzz._write_tokenizer(folder / "tokenized")
    shutil.copytree(folder / "dense", folder / "dense converted")
    find(folder / "dense converted")


def tokenizer_case(bases: Path, folder: Path, rng: random.Random) -> kinds.Case:
    """Change a tokenizer.json, a vocab.txt or a tokenizer_config.json."""
    path = folder / "m"
    shutil.copytree(bases / "tokenized", path)
    how = [_change_tokenizer(path / "tokenizer.json", rng) for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.3:
        how.append(_plain_vocabulary(path, rng))
    if rng.random() < 0.4:
        config = {"do_lower_case": rng.choice((True, False, None)), "unk_token": rng.choice(("[UNK]", "the", "a b"))}
        if rng.random() < 0.2:
            config[rng.choice(sorted(config))] = kinds.value(rng)
        (path / "tokenizer_config.json").write_bytes(json.dumps(config).encode("utf-8", "surrogatepass"))
        how.append(f"tokenizer_config.json: {config!r:.60}")
    fuzz.seal(path)
    return kinds.Case("; ".join(how), _use_tokenizer)


def _plain_vocabulary(path: Path, rng: random.Random) -> str:
    lines = list(json.loads((path / "tokenizer.json").read_text()).get("model", {}).get("vocab", {}) or ["[UNK]"])
    for _ in range(rng.randint(0, 6)):
        lines.insert(rng.randint(0, len(lines)), rng.choice(TOKENS))
    (path / "tokenizer.json").unlink()
    data = "\n".join(map(str, lines)).encode("utf-8", "surrogatepass")
    (path / "vocab.txt").write_bytes(messages.damage(data, rng) if rng.random() < 0.5 else data)
    return "vocab.txt"


def _change_tokenizer(file: Path, rng: random.Random) -> str:
    try:
        data: Any = json.loads(file.read_text())
        roll, model = rng.random(), data["model"]
        if roll < 0.3:
            vocabulary = model["vocab"]
            for _ in range(rng.choice((1, 3, 30))):
                number = rng.randrange(len(vocabulary))
                if rng.random() < 0.05:
                    number = rng.choice((len(vocabulary), 2**16, 2**24 - 1, 2**24, 2**31, 2**32, -1))
                piece = rng.choice(TOKENS) if rng.random() < 0.7 else rng.choice(sorted(vocabulary))
                vocabulary[piece] = number
            if rng.random() < 0.5:  # the marks keep theirs
                marks = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
                vocabulary.update(marks)
            how = "vocab"
        elif roll < 0.5:
            token = {"id": rng.choice((0, 3, len(model["vocab"]), 2**24 - 1)), "content": rng.choice(TOKENS)}
            flags = {key: rng.random() < 0.5 for key in ("single_word", "lstrip", "rstrip", "normalized", "special")}
            if rng.random() < 0.7 and model["vocab"]:
                token["content"] = rng.choice(sorted(model["vocab"]))
                token["id"] = model["vocab"][token["content"]]
            copies = rng.choice((1, 1, 1, 2000))
            data["added_tokens"] = [*(data.get("added_tokens") or []), *([token | flags] * copies)]
            how = f"added {token!r:.40} {copies} times"
        elif roll < 0.6:
            key = rng.choice(("max_input_chars_per_word", "continuing_subword_prefix", "unk_token"))
            model[key] = rng.choice((*TOKENS, 0, 1, 200, 201, -1)) if rng.random() < 0.8 else kinds.value(rng)
            how = f"{key} = {model[key]!r:.40}"
        elif roll < 0.75:
            flags = {
                key: rng.choice((True, False, None))
                for key in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
            }
            data["normalizer"] = {"type": "BertNormalizer", **flags}
            how = f"normalizer {flags}"
        else:
            data, how = kinds.change_value(data, rng)
        file.write_bytes(json.dumps(data).encode("utf-8", "surrogatepass"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "nothing"
    return how


def _use_tokenizer(folder: Path) -> str:
    from sbert_mini import Embedder

    embedder = Embedder(folder / "m", threads=1, offline=True)
    embedder.encode(TEXTS)
    embedder.encode(TEXTS[:3], truncation="chunk")
    embedder.tokenize(TEXTS)
    embedder.encode_pairs([(TEXTS[0], TEXTS[5])])
    return f"read {embedder.backend}"


def modules_case(bases: Path, folder: Path, rng: random.Random) -> kinds.Case:
    """Change the modules of a small model: which there are, their sizes, their weights."""
    path = folder / "m"
    shutil.copytree(bases / rng.choice(("dense", "dense converted", "dense converted")), path)
    how = [_change_module(path, rng) for _ in range(rng.choice((1, 1, 2)))]
    fuzz.seal(path)
    return kinds.Case("; ".join(how), partial(_use_modules, seed=rng.random()))


def _change_module(path: Path, rng: random.Random) -> str:
    configs = sorted(file for file in path.rglob("config.json") if file.parent != path)
    weights = sorted(file for file in path.rglob("model.safetensors") if file.parent != path)
    roll = rng.random()
    file = path / "modules.json" if roll < 0.2 else rng.choice(configs) if roll < 0.45 else rng.choice(weights)
    try:
        if roll > 0.6:
            return _resize(file.parent, rng)
        if file.suffix == ".safetensors":
            return f"{file.parent.name}: {kinds.change_header(file, rng)}"
        data = json.loads(file.read_text())
        sizes = [key for key in data if key in ("in_features", "out_features")] if isinstance(data, dict) else []
        if sizes and rng.random() < 0.5:
            key = rng.choice(sizes)
            data[key] = rng.choice((0, 1, 6, 12, 28, 384, 2**16, 2**20, 2**20 + 1, 2**31))
            how = f"{key} = {data[key]}"
        else:
            data, how = kinds.change_value(data, rng)
        file.write_bytes(json.dumps(data).encode("utf-8", "surrogatepass"))
        return f"{file.relative_to(path)}: {how}"
    except ValueError:
        return "nothing"


def _resize(folder: Path, rng: random.Random) -> str:
    """Give a Dense module weights of another size, type or range, with a configuration that agrees."""
    import numpy as np
    from safetensors.numpy import save_file

    data = json.loads((folder / "config.json").read_text())
    given = data["in_features"] if rng.random() < 0.8 else rng.choice((1, 6, 28, 4096))
    made = rng.choice((1, 2, 6, 12, 28, 4096, 65536))
    number = rng.choice((0.0, 1.0, 1e-30, 1e30, 3e38, float("nan"), float("inf")))
    kind = rng.choice((np.float32, np.float32, np.float16, np.float64, np.int8, np.int64))
    with np.errstate(all="ignore"):
        tensors = {"linear.weight": np.full((made, given), number).astype(kind)}
        if data.get("bias"):
            tensors["linear.bias"] = np.full(made, number).astype(kind)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(data | {"in_features": given, "out_features": made}))
    return f"{folder.name}: {given} to {made}, {number} as {np.dtype(kind)}"


def _use_modules(folder: Path, seed: float) -> str:
    from sbert_mini import Embedder

    graph = random.Random(seed).choice(("int8", "int8", "fp32"))
    embedder = Embedder(folder / "m", graph=graph, threads=1, offline=True)  # type: ignore[arg-type]
    embedder.encode(TEXTS)
    embedder.encode(TEXTS[:2], precision="int8", truncate_dim=1)
    return f"read {embedder.backend}"


CASES: Mapping[str, Callable[[Path, Path, random.Random], kinds.Case]] = {
    "tokenizer": tokenizer_case,
    "modules": modules_case,
}
