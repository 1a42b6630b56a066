"""Write the generated parts of README.md and docs/: tables from `benchmarks/results/*.json`, commands from
`--help`, the keys of a recipe from `recipes.recipe`.

python -m benchmarks.docs
"""

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS
from sbert_mini.evaluation import tables
from sbert_mini.recipes.recipe import DataPart, EvaluationPart, ModelPart, OptimizerPart, PhasePart, TaskPart, TrainPart
from sbert_mini.training.config import AverageConfig, LoraConfig, RegularizationConfig
from sbert_mini.training.task_config import MarginConfig, TaskConfig

ROOT = Path(__file__).parent.parent


def sts(found: dict[str, Any]) -> str:
    """Return the quality table."""
    return tables.sts(found)[0].markdown()


def speed(found: dict[str, Any]) -> str:
    """Return the tables of speed."""
    return "\n\n".join(f"**{table.title}**\n\n{table.markdown()}" for table in tables.speed(found))


def search(found: dict[str, Any]) -> str:
    """Return the tables of search and retrieval."""
    return "\n\n".join(f"**{table.title}**\n\n{table.markdown()}" for table in tables.search(found))


def pairs(found: dict[str, Any]) -> str:
    """Return the table of the most similar pair."""
    return tables.pairs(found)[0].markdown()


def memory(found: dict[str, Any]) -> str:
    """Return the table of peak memory."""
    rows = ["| `sbmini encode -i sentences.txt -o vectors.npy` | peak memory |", "| --- | --- |"]
    for size, entry in found["sentences"].items():
        rows.append(f"| {int(size):,} Wikipedia sentences | {entry['peak_bytes'] / 1e6:.0f} MB |")
    return "\n".join(rows)


def large_index(found: dict[str, Any]) -> str:
    """Return the table of an index of a million rows."""

    def told(name: str, digits: int, unit: str) -> str:
        entry = found[name]
        return f"{entry['median']:.{digits}f} [{entry['low']:.{digits}f}-{entry['high']:.{digits}f}] {unit}"

    add = found["add_s"]
    ours, peer = found["queries_per_s"].values()
    rows = {
        "building from vectors, the process": f"{found['build_s']:.0f} s, {found['build_peak_bytes'] / 1e6:,.0f} MB",
        "peak memory of a process that encodes and searches": f"{found['search_peak_bytes'] / 1e6:,.0f} MB",
        f"recall@{found['k']} against exact search": f"{found['recall']:.4f}",
        "one query, in a process": told("single_ms", 2, "ms"),
        "one query with a filter": told("filtered_ms", 1, "ms"),
        "one query with `--hybrid`, encoding included": told("hybrid_ms", 0, "ms"),
        f"a batch of {found['queries']:,} queries": f"{ours['median']:,.0f} queries/s; {found['times_faster']:.1f} times "
        f"`sentence_transformers.util.semantic_search` ({peer['median']:,.0f})",
        "`sbmini search` from a cold start": told("cold_start_s", 2, "s"),
        "adding 1,000 rows with vectors, the process": f"{add['large']['median']:.2f} s (to {found['small_rows']:,} rows: "
        f"{add['small']['median']:.2f} s)",
        "on the disk": f"{found['bytes'] / 1e9:.2f} GB",
    }
    head = f"| {found['rows']:,} rows of {found['dim']}, `{found['kind']}` | |"
    return "\n".join([head, "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def capacity(found: dict[str, Any]) -> str:
    """Return what more rows take: the first row of the table is measured, the others are in proportion to it."""
    encoded = json.loads((RESULTS / "processes.json").read_text("utf-8"))["end_to_end"]["sbert-mini"]
    rate = encoded["rows"] / encoded["seconds"]
    rows = [
        "| rows | encoding, 2 cores | building, 2 cores | on the disk | memory while searching | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    told = {
        1: "measured",
        10: "in proportion; a process that builds holds about 20 GB",
        100: "in proportion; encode on Ray, serve from Milvus: one machine would build it from parts, and be the only copy",
    }
    fixed = 150e6  # the process with its model, of what was measured
    for times, note in told.items():
        memory = fixed + times * (found["search_peak_bytes"] - fixed)
        encoding, building = (_duration(times * s) for s in (found["rows"] / rate, found["build_s"]))
        disk = times * found["bytes"] / 1e9
        count = f"{times * found['rows'] / 1e6:,.0f} million"
        rows.append(f"| {count} | {encoding} | {building} | {disk:,.0f} GB | {memory / 1e9:.1f} GB | {note} |")
    return "\n".join(rows)


def _duration(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def encoding(found: dict[str, Any]) -> str:
    """Return the tables of encoding, by what computes."""
    parts: list[str] = []
    for name, model in found["models"].items():
        rows = [
            f"| {name}, {found['texts']:,} questions of {model['tokens_per_text']:.1f} tokens | texts/s | to dynamic int8 "
            "| share of the limit | mean cosine | lowest | alone and in a batch, lowest | one text, p50, p99 |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for label, entry in model["contestants"].items():
            rate = entry["texts_per_s"]
            near = (
                ("", "") if entry["cosine_mean"] is None else (f"{entry[f'cosine_{k}']:.4f}" for k in ("mean", "min"))
            )
            share = (
                ""
                if label.endswith("sentence-transformers")
                else f"{100 * rate['median'] / model['limit_texts_per_s']:.0f} %"
            )
            rows.append(
                f"| {label} | {rate['median']:,.0f} [{rate['low']:,.0f}-{rate['high']:,.0f}] | {entry['to_dynamic_int8']:.2f} "
                f"| {share} | {' | '.join(near)} | {entry['alone_to_batch_min']:.6f} "
                f"| {entry['p50_ms']:.2f}, {entry['p99_ms']:.2f} ms |"
            )
        parts.append("\n".join(rows))
    limits = ", ".join(f"{m['limit_texts_per_s']:,.0f} texts/s of {name}" for name, m in found["models"].items())
    parts.append(
        "Batches of 32. The limit is what torch's own int8 product reaches in the shape of a feed-forward layer: "
        f"{limits}; native code may pass it. "
        "\"To dynamic int8\": median of the rounds' ratios to the faster of ONNX Runtime's two arrangements."
    )
    return "\n\n".join(parts)


def whole_processes(found: dict[str, Any]) -> str:
    """Return the table of a million sentences end to end, and of cold starts."""
    rows = ["| whole processes | seconds | peak memory | tokenizing |", "| --- | --- | --- | --- |"]
    for name, entry in found["end_to_end"].items():
        rate = entry["rows"] / entry["seconds"]
        rows.append(
            f"| `sbmini encode -m {name}`, {entry['rows']:,} Wikipedia sentences | {entry['seconds']:.0f} ({rate:,.0f} a second) "
            f"| {entry['peak_bytes'] / 1e6:.0f} MB | {100 * entry['tokenizer_share']:.0f} % of the processor time |"
        )
    for name, entry in found["cold_start"].items():
        seconds = entry["seconds"]
        rows.append(
            f"| cold start of {name} | {seconds['median']:.2f} [{seconds['low']:.2f}-{seconds['high']:.2f}] "
            f"| {entry['peak_bytes']['median'] / 1e6:.0f} MB | |"
        )
    return "\n".join(rows)


def surgery(found: dict[str, Any]) -> str:
    """Return the table of what surgery costs."""
    what = f"{found['tasks']} tasks of {found['batch']} texts of {found['tokens']} tokens"
    what += f", {found['parameters'] / 1e6:.1f}M parameters"
    rows = [f"| {what} | ms a step | to the summed backward | peak memory |", "| --- | --- | --- | --- |"]
    for name, entry in found["contestants"].items():
        rows.append(
            f"| {name} | {entry['ms']['median']:.0f} [{entry['ms']['low']:.0f}-{entry['ms']['high']:.0f}] "
            f"| {entry['to_summed']:.2f} | {entry['peak_bytes'] / 1e6:.0f} MB |"
        )
    ratio = {name: entry["to_summed"] for name, entry in found["contestants"].items()}
    like = ratio["ours"] / ratio["summed backward, sparse table"]
    rows.append(
        f"\nLike for like: {like:.2f} where both look the table up sparsely, {ratio['ours, dense table']:.2f} where neither does."
    )
    return "\n".join(rows)


def optimizer(found: dict[str, Any]) -> str:
    """Return the table of what an optimizer step costs."""
    what = f"| a step over {found['parameters'] / 1e6:.1f}M parameters | ms | to foreach | to fused |"
    rows = [what, "| --- | --- | --- | --- |"]
    for name, entry in found["contestants"].items():
        rows.append(f"| {name} | {entry['ms']['median']:.1f} | {entry['to_foreach']:.2f} | {entry['to_fused']:.2f} |")
    return "\n".join(rows)


def training(found: dict[str, Any]) -> str:
    """Return the table of training throughput."""
    rows = [
        f"| Quora, STS-B, NLI, {found['batch']} examples a step | examples/s | times faster |",
        "| --- | --- | --- |",
    ]
    for name, entry in found["contestants"].items():
        rows.append(
            f"| {name} | {entry['examples_per_s']['median']:.1f} "
            f"[{entry['examples_per_s']['low']:.1f}-{entry['examples_per_s']['high']:.1f}] | {entry['times_faster']:.2f} |"
        )
    return "\n".join(rows)


def paper(found: dict[str, Any]) -> str:
    """Return the paper's table: the saved model against the paper's figures, and each evaluation of both phases."""
    made = {table.title: table for table in tables.training(found)}
    notes = "\n\n".join(found["notes"])
    return "\n\n".join([made["The saved model"].markdown(), notes, made["Dev figures of each evaluation"].markdown()])


def model(found: dict[str, Any]) -> str:
    """Return the shipped models' table: similarity, retrieval, size, and speed against the peer."""
    columns = {
        "stsb_test": "STS-B",
        "sickr_test": "SICK-R",
        "mean": "mean of 5 STS sets",
        "scifact": "SciFact",
        "cranfield": "Cranfield",
    }
    rows = [
        f"| | {' | '.join(columns.values())} | weights | times as fast |",
        "| --- |" + " --- |" * (len(columns) + 2),
    ]
    for name, figures in found["quality"].items():
        cells = [f"{figures[key]:.2f}" if key in figures else "" for key in columns]
        own = found["speed"].get(name)
        held = ["", ""]
        if own:
            held = [f"{own['bytes'][f'{name} (int8)'] / 1e6:.1f} MB", f"{own['rate']['times_faster']:.2f}"]
        elif name in (sizes := next(iter(found["speed"].values()))["bytes"]):
            held = [f"{sizes[name] / 1e6:.1f} MB", "1"]
        rows.append(f"| {name} | {' | '.join([*cells, *held])} |")
    return "\n".join(
        [
            *rows,
            "",
            "Spearman x 100 (the five sets are STS12, 13, 15, STS-B test and SICK-R test), nDCG@10 x 100; `[:128]`: the first "
            "128 dimensions; last column: Quora questions a second, batches of 32, against sentence-transformers in one run.",
            "",
            found["note"],
        ]
    )


def summary(found: dict[str, Any]) -> str:
    """Return the README's table: the shipped models against the peer, without shortened vectors."""
    return model({**found, "quality": {k: v for k, v in found["quality"].items() if "[:" not in k}}).replace(
        "; `[:128]`: the first 128 dimensions", ""
    )


def ablations(found: dict[str, Any]) -> str:
    """Return the tables of the ablations, a group each: mean and standard deviation over the seeds."""
    parts = []
    for name, group in found["groups"].items():
        keys = {
            "sst": "SST-5",
            "quora": "Quora",
            "sts": "STS-B Pearson",
            "sts_spearman": "STS-B Spearman",
            "model_acc": "mean",
        }
        keys = {k: w for k, w in keys.items() if any(k in arm["figures"] for arm in group["arms"].values())}
        rows = [
            f"| {name}: {group['steps']} steps of {group['examples_a_step']} | seeds | {' | '.join(keys.values())} |",
            "| --- | --- |" + " --- |" * len(keys),
        ]
        for arm, entry in group["arms"].items():
            cells = [_mean_and_spread(entry["figures"].get(key)) for key in keys]
            rows.append(f"| {arm} | {len(entry['runs'])} | {' | '.join(cells)} |")
        parts.append("\n".join(rows))
    return "\n\n".join([*parts, found["note"]])


def _mean_and_spread(entry: dict[str, float | None] | None) -> str:
    if entry is None:
        return ""
    spread = f" ± {entry['std']:.4f}" if entry["std"] is not None else ""
    return f"{entry['mean']:.4f}{spread}"


def recipe_keys() -> str:
    """Return a table of every key of a recipe, from the docstrings and defaults of `recipes.recipe`."""
    rows = ["| key | default | what it says |", "| --- | --- | --- |"]
    for table, kind in RECIPE:
        text = inspect.getdoc(kind) or ""
        for field in fields(kind):
            if field.type is TaskConfig:
                continue  # its fields stand in the same table, and have rows of their own
            description = re.search(rf"^    {field.name}: (.*(?:\n        .*)*)", text, re.MULTILINE)
            assert description is not None, f"{kind.__name__}.{field.name} is not described"
            words = " ".join(description[1].split())
            choices = field.metadata.get("choices")
            words += f" One of {', '.join(f'`{c}`' for c in choices)}." if choices else ""
            rows.append(f"| `{table}` {field.name} | {_default(field)} | {words} |")
    return "\n".join(rows)


RECIPE: Sequence[tuple[str, type]] = (
    ("[data]", DataPart),
    ("[model]", ModelPart),
    ("[lora]", LoraConfig),
    ("[train]", TrainPart),
    ("[optimizer]", OptimizerPart),
    ("[regularization]", RegularizationConfig),
    ("[average]", AverageConfig),
    ("[evaluation]", EvaluationPart),
    ("[[phase]]", PhasePart),
    ("[[task]]", TaskConfig),
    ("[[task]]", TaskPart),
    ("[task.margin]", MarginConfig),
)


def _default(field: Field[Any]) -> str:
    if field.default is MISSING:
        return "required" if field.default_factory is MISSING else ""
    if field.default in (None, ()):
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def commands() -> str:
    """Return the help of every command, as the command prints it."""
    sbmini = str(Path(sys.executable).with_name("sbmini"))
    blocks = []
    for command in COMMANDS:
        done = subprocess.run(
            [sbmini, *command.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"},
        )
        lines = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
        blocks.append(f"### `sbmini {command}`\n```text\n{lines}\n```" if command else f"```text\n{lines}\n```")
    return "\n\n".join(blocks)


COMMANDS = (
    "",
    "encode",
    "index create",
    "index add",
    "index update",
    "index delete",
    "index compact",
    "index push",
    "index info",
    "index verify",
    "search",
    "dedup",
    "reduce fit",
    "reduce apply",
    "bench sts",
    "bench speed",
    "bench search",
    "bench pairs",
    "train",
    "soup",
    "recipes list",
    "recipes show",
    "predict",
    "models list",
    "models info",
    "models convert",
)
TABLES = {
    "sts": sts,
    "speed": speed,
    "search": search,
    "pairs": pairs,
    "encoding": encoding,
    "processes": whole_processes,
    "memory": memory,
    "large_index": large_index,
    "surgery": surgery,
    "optimizer": optimizer,
    "training": training,
    "model": model,
    "paper": paper,
    "ablations": ablations,
}


def documents() -> dict[Path, str]:
    """Return README.md and every page of docs/, a text by its file."""
    return {path: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def updated(texts: dict[Path, str]) -> dict[Path, str]:
    """Return the texts with each generated part made anew between its two markers."""
    large = json.loads((RESULTS / "large_index.json").read_text("utf-8"))
    parts = {"commands": commands(), "recipe": recipe_keys(), "capacity": capacity(large)}
    for name, table in TABLES.items():
        found = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
        parts[name] = f"{table(found)}\n\n{tables.machine_note(found)}"
    shipped = json.loads((RESULTS / "model.json").read_text("utf-8"))
    parts["summary"] = f"{summary(shipped)}\n\n{tables.machine_note(shipped)}"
    texts = dict(texts)
    for name, part in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        homes = [path for path, text in texts.items() for _ in range(text.count(start))]
        if len(homes) != 1 or texts[homes[0]].count(end) != 1:
            raise SystemExit(f"the markers of {name!r} must stand once in README.md and docs/; found {len(homes)}")
        before, rest = texts[homes[0]].split(start)
        texts[homes[0]] = f"{before}{start}{part}\n{end}{rest.split(end)[1]}"
    return texts


def main() -> None:
    for path, text in updated(documents()).items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
