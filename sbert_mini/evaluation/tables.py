"""Result records, as their JSON holds them -> tables: for a terminal, for Markdown and for HTML."""

from collections.abc import Sequence
from dataclasses import replace

from sbert_mini.evaluation.audit import audit_tables
from sbert_mini.evaluation.gain_tables import (
    CONFUSIONS,
    COST,
    CURVES,
    LEARNED,
    SURGERY,
    by_graph,
    comparison,
    start_figures,
)
from sbert_mini.evaluation.gains import FIGURES
from sbert_mini.evaluation.log_keys import CONFLICT, MEAN, TRAIN
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.text.markdown import code


def spread(values: Json, digits: int, unit: str = "") -> str:
    """Return `median [lowest-highest]` of a `measure.summary`, with some decimals and a unit after the median."""
    low, high = (f"{values[key]:,.{digits}f}" for key in ("low", "high"))
    return f"{values['median']:,.{digits}f}{unit} [{low}-{high}]"


def machine_note(result: Json) -> str:
    """Return the line that stands under every figure: command, date, threads, machine, versions."""
    card = result["machine"]
    packages = ", ".join(f"{name} {package_version}" for name, package_version in card["packages"].items())
    threads = f"{_threads(card['threads'])}, " if "threads" in card else ""
    return f"{code(result['command'])}, {card['date']}, {threads}{card['cpu']}, Python {card['python']}, {packages}."


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"


def _number(value: float | None, digits: int = 2) -> str:
    return "undefined" if value is None else f"{value:,.{digits}f}"


def _label(model: Json) -> str:
    return f"{model['model']} ({model['runtime']})"


def mean_name(model: Json) -> str:
    """Return what a model's mean is over, in words."""
    if model["is_mean_of_seven"]:
        return "mean of the seven usual tasks"
    if not model["mean_of"]:
        return "there is no mean, since no set counts"
    return f"mean of {len(model['mean_of'])}: {', '.join(model['mean_of'])}"


def sts(result: Json) -> list[Table]:
    """Return the tables of `sbmini bench sts`: correlations, and the differences between models."""
    models = result["models"]
    names = [s["set"] for s in models[0]["sets"]]
    rows = tuple(
        (
            _label(model),
            *(_number(s["spearman"]) + ("*" if s["trained_on"] else "") for s in model["sets"]),
            _number(model["mean"]),
        )
        for model in models
    )
    details = tuple(
        (
            name,
            f"{score['n']:,}",
            _label(model),
            _number(score["spearman"]),
            _bounds(score["spearman_interval"], ""),
            _number(score["pearson"]),
            _bounds(score["pearson_interval"], ""),
        )
        for position, name in enumerate(names)
        for model in models
        for score in (model["sets"][position],)
    )
    means = tuple(("mean", "", _label(m), _number(m["mean"]), _bounds(m["mean_interval"], ""), "", "") for m in models)
    notes = [f"{_label(m)}: {mean_name(m)}." for m in models] if models else []
    if len({tuple(m["mean_of"]) for m in models}) == 1:
        notes = [f"Mean of Spearman: {mean_name(models[0])}."]
    for model in models:
        for score in model["sets"]:
            if score["trained_on"]:
                notes.append(f"* {_label(model)}, {score['set']}: {score['trained_on']}. Left out of its mean.")
            if reason := score.get("undefined"):
                notes.append(f"{_label(model)}, {score['set']}: undefined, since {reason}. Left out of its mean.")
        if model["truncated"]:
            notes.append(f"{_label(model)}: {model['truncated']} sentences are longer than it reads and were cut.")
    notes += [f"{name}: absent." for name in result["absent"]]
    notes += [
        f"{name}: {count} pairs without a gold score were left out." for name, count in result["unscored"].items()
    ]
    for score in models[0]["sets"]:
        for subset in score.get("left_out", ()):
            why = "one pair, or gold scores that are all equal"
            notes.append(f"{score['set']}: the subset {subset or 'without a name'} is undefined ({why}), and left out.")
    if "builtin" in names:
        notes.append("builtin: 64 pairs written for this project, for a smoke run; no figure to quote.")
    pooling = models[0]["sets"][0]["pooling"]
    words = {
        "all": "pairs of all subsets joined, as MTEB does",
        "mean": "mean of the subsets",
        "wmean": "weighted mean",
    }
    notes.append(f"Correlations x 100 of cosine and gold score; {words[pooling]}; {result['resamples']:,} resamples.")
    header = ("set", "pairs", "model", "Spearman", "95 %", "Pearson", "95 %")
    tables = [
        Table("Semantic textual similarity, Spearman x 100", ("model", *names, "mean"), rows, tuple(notes)),
        Table("With bootstrap intervals", header, details + means),
    ]
    compared = [
        (f"{c['a']} - {c['b']}", d["set"], f"{d['difference']:+.2f}", _bounds(d["interval"], "+"), _number(d["p"], 3))
        for c in result["comparisons"]
        for d in c["differences"]
    ]
    if compared:
        title = "Differences (Spearman x 100, paired bootstrap)"
        note = "p is two-sided and not corrected for the number of comparisons."
        tables.append(Table(title, ("models", "set", "difference", "95 %", "p"), tuple(compared), (note,)))
    return tables


def _bounds(bounds: Sequence[float] | None, sign: str) -> str:
    return f"[{bounds[0]:{sign}.2f}, {bounds[1]:{sign}.2f}]" if bounds else ""


def speed(result: Json) -> list[Table]:
    """Return the tables of `sbmini bench speed`."""
    tables: list[Table] = []
    rows: tuple[tuple[str, ...], ...]
    reference = result["reference"]
    if cold := result["cold_start"]:
        rows = tuple(
            (
                name,
                spread(measured["seconds"], 2, " s"),
                f"{measured['peak_bytes']['median'] / 1e6:.0f} MB",
                _number(measured["times_faster"], 1) if measured["times_faster"] else "",
            )
            for name, measured in cold.items()
        )
        tables.append(
            Table("Cold start of a whole process", ("process", "seconds", "peak memory", "times faster"), rows)
        )
    rows = tuple(
        (
            name,
            spread(measured["p50_ms"], 2, " ms"),
            spread(measured["p99_ms"], 2, " ms"),
            _number(measured["times_faster"]) if measured["times_faster"] else "",
        )
        for name, measured in result["latency"].items()
    )
    tables.append(Table("One text, the model loaded", ("model", "p50", "p99", "times faster"), rows))
    for key, title, word in (
        ("by_batch_size", f"Texts a second by batch size ({result['texts']:,} texts)", "batch"),
        ("by_length", "Texts a second by length of the text (batch 32)", "tokens"),
    ):
        sizes = sorted(next(iter(result[key].values())), key=int)
        rows = tuple(
            (
                name,
                *(
                    spread(measured[size]["texts_per_s"], 0)
                    + (f" (x {measured[size]['times_faster']:.2f})" if measured[size]["times_faster"] else "")
                    for size in sizes
                ),
            )
            for name, measured in result[key].items()
        )
        notes: tuple[str, ...] = (
            "Median [lowest-highest] of the rounds. Ours holds at most 512 tokens, or 16 a text, in one batch.",
        )
        notes += (f"x: median of the rounds' ratios to {reference}.",) if reference else ()
        tables.append(Table(title, ("model", *(f"{word} {size}" for size in sizes)), rows, notes))
    rows = tuple(
        (
            name,
            f"{measured['cosine_mean']:.4f}" if measured["cosine_mean"] is not None else "",
            f"{measured['cosine_min']:.4f}" if measured["cosine_min"] is not None else "",
            f"{measured['alone_to_batch_min']:.6f}",
            f"{measured['disk_bytes'] / 1e6:.1f} MB" if measured["disk_bytes"] else "",
            f"{measured['peak_bytes'] / 1e6:.0f} MB" if measured["peak_bytes"] else "",
            measured.get("backend") or "",
        )
        for name, measured in result["models"].items()
    )
    header = ("model", "mean cosine", "lowest", "alone against batch, lowest", "on disk", "peak memory", "computed by")
    note = f"Cosine to {result['fidelity_to']}; peak memory of a process that encodes {result['texts']:,} texts."
    tables.append(Table("Closeness, size and memory", header, rows, (note,)))
    if roof := result["roofline"]:
        rows = tuple(
            (name, f"{measured['limit_texts_per_s']:,.0f}", f"{100 * measured['share']:.0f} %")
            for name, measured in roof["models"].items()
        )
        note = (
            f"Matrix products alone bound the rate: {roof['flops_per_text'] / 1e6:.0f} MFLOP a text of "
            f"{roof['tokens_per_text']:.1f} tokens; measured here: {roof['fp32_flops_per_s'] / 1e9:.0f} GFLOP/s fp32, "
            f"{roof['int8_flops_per_s'] / 1e9:.0f} GOP/s int8 ({roof['how']}; native code may pass it)."
        )
        tables.append(Table("Share of this machine's limit", ("model", "limit, texts/s", "reached"), rows, (note,)))
    return tables


def search(result: Json) -> list[Table]:
    """Return the tables of `sbmini bench search`."""
    tables: list[Table] = []
    rows: tuple[tuple[str, ...], ...]
    if kinds := result["kinds"]:
        rows = tuple(
            (
                name,
                f"{kind['recall']:.4f}",
                spread(kind["queries_per_s"], 0),
                _number(kind["times_faster"]) if kind["times_faster"] else "",
                f"{kind['single_ms']['median']:.2f} ms",
                f"{kind['build_s']:.2f} s" if kind["build_s"] is not None else "",
                f"{kind['bytes_per_vector']:.0f}" if kind["bytes_per_vector"] is not None else "",
                f"{kind['peak_bytes'] / 1e6:.0f} MB" if kind["peak_bytes"] else "",
            )
            for name, kind in kinds.items()
        )
        header = ("kind", f"recall@{result['k']}", "queries/s, batch", "times faster", "one query", "build")
        notes = [
            f"{result['rows']:,} rows of {result['dim']}, {result['queries']:,} queries; recall against exact search."
        ]
        if result["reference"]:
            notes.append(f"Times faster than {result['reference']}, the median of the rounds' ratios.")
        tables.append(
            Table("Search: kinds of index", (*header, "bytes a vector", "peak memory"), rows, (" ".join(notes),))
        )
    for dataset in result["retrieval"]:
        rows = tuple(
            (
                f"{m['model']} ({m['runtime']})",
                f"{m['ndcg_at_10']:.4f}",
                f"{m['recall_at_100']:.4f}",
                f"{m['mrr_at_10']:.4f}",
                f"{m['truncated']:,}",
            )
            for m in dataset["models"]
        )
        title = f"Retrieval: {dataset['dataset']}, {dataset['documents']:,} documents, {dataset['queries']:,} queries"
        tables.append(Table(title, ("model", "nDCG@10", "recall@100", "MRR@10", "documents cut"), rows))
    return tables


_MEASURES = {"ndcg_at_10": "nDCG@10", "recall_at_10": "recall@10", "recall_at_100": "recall@100", "mrr_at_10": "MRR@10"}
_COUNTS = {
    "queries": "queries in the file",
    "repeated_queries": "rows that repeat a query",
    "unjudged_queries": "queries without a judgment: left out",
    "irrelevant_queries": "queries without a relevant document: left out",
    "unknown_queries": "judged queries that the file of queries lacks: left out",
    "evaluated_queries": "queries evaluated",
    "judgments": "judgments",
    "repeated_judgments": "rows that repeat a judgment",
    "conflicting_judgments": "rows that judge a pair anew with another grade: the highest grade counts",
    "relevant": "relevant documents of the evaluated queries",
    "absent_documents": "judged documents that the index does not have",
    "absent_relevant": "relevant documents of them: they count as not found",
}
_SHOWN_QUERIES = 10


def own_data(result: Json) -> list[Table]:
    """Return the tables of `sbmini bench search --index`."""
    methods, counts = result["methods"], result["counts"]
    figures = tuple(
        (f"by {method}", *(f"{m['value']:.4f} {_bounds(m['interval'], '')}" for m in measures.values()))
        for method, measures in methods.items()
    )
    bootstrap = f"{result['resamples']:,} bootstrap resamples of the queries, seed {result['seed']}"
    title = f"{result['index']}: {counts['evaluated_queries']:,} queries, {result['rows']:,} rows, {result['model']}"
    note = f"Means with 95 % intervals: {bootstrap}; {result['depth']} hits a query."
    tables = [Table(title, ("search", *_MEASURES.values()), figures, (note,))]
    compared = tuple(
        (
            f"{c['first']} - {c['second']}",
            _MEASURES[measure],
            f"{c['difference']:+.4f}",
            _bounds(c["interval"], "+"),
            f"{c['p']:.4f}",
        )
        for measure, comparisons in result["comparisons"].items()
        for c in comparisons
    )
    if compared:
        note = f"Paired bootstrap: {bootstrap}; p is two-sided, and not adjusted for the number of comparisons."
        tables.append(Table("Differences", ("search", "measure", "difference", "95 %", "p"), compared, (note,)))
    used = tuple((text, f"{counts[name]:,}") for name, text in _COUNTS.items())
    tables.append(Table("Queries and judgments", ("what", "number"), used))
    best = max(methods, key=lambda method: methods[method]["ndcg_at_10"]["value"])
    lowest = sorted(result["queries"], key=lambda query: query[best]["ndcg_at_10"])[:_SHOWN_QUERIES]
    rows = tuple(
        (q["query_id"], q["query"], str(q["relevant"]), *(f"{q[method]['ndcg_at_10']:.4f}" for method in methods))
        for q in lowest
    )
    header = ("query", "text", "relevant", *(f"nDCG@10 by {method}" for method in methods))
    note = f"By {best}. --json gives the figures of every query."
    return [*tables, Table("Queries with the lowest nDCG@10", header, rows, (note,))]


def pairs(result: Json) -> list[Table]:
    """Return the tables of `sbmini bench pairs`."""
    cost = {name: measured["pairs_per_s"]["median"] for name, measured in result["cross_encoders"].items()}
    rows = []
    for size in result["sizes"]:
        count = size["n"] * (size["n"] - 1) // 2
        row = [f"{size['n']:,}", f"{count:,}", duration(size["encode_s"] + size["search_s"])]
        for rate in cost.values():
            row += [duration(count / rate), f"{count / rate / (size['encode_s'] + size['search_s']):,.0f}"]
        rows.append(tuple(row))
    header = ["sentences", "pairs", f"{result['model']} ({result['runtime']}) + FAISS"]
    for name in cost:
        header += [f"{name}, extrapolated", "times"]
    rates = "; ".join(f"{name}: {rate:.1f} pairs/s" for name, rate in cost.items())
    notes = (f"Cross-encoders measured on {result['sample']:,} pairs, [CLS] a [SEP] b [SEP], fp32 in torch. {rates}.",)
    tables = [Table("The most similar pair among n sentences", tuple(header), tuple(rows), notes)]
    answers = tuple((f"{s['n']:,}", f"{s['cosine']:.4f}", s["first"], s["second"]) for s in result["sizes"])
    tables.append(Table("The answers", ("sentences", "cosine", "first", "second"), answers))
    return tables


NO_BEST = "No evaluation has a defined mean, so no step is the best one: the weights are those of the last step."
"""Said where nothing tells which step is the best one."""


def training(result: Json) -> list[Table]:
    """Return the tables of a training run: its tasks, the figures of each evaluation, confusions, what it cost."""
    scored = [task for task in result["tasks"] if task["metric"]]
    tables = [
        Table(
            "Tasks",
            ("task", "structure", "loss", "train rows", "dev rows"),
            tuple(
                (t["name"], t["structure"], t["loss"], f"{t['train_rows']:,}", f"{t['dev_rows']:,}")
                for t in result["tasks"]
            ),
            tuple(_start_notes(result)),
            LEARNED,
        )
    ]
    if scored:
        tables.append(replace(_best(result, scored), section=LEARNED))
    tables += comparison(result.get("start_comparison"))
    for prefix, name in (("", "Dev figures"), (TRAIN, "Training figures (a sample of the training rows)")):
        keys = [
            (f"{prefix}{task['name']}_{key}", f"{task['name']} {word}")
            for task in scored
            for key, word in FIGURES.items()
            if any(f"{prefix}{task['name']}_{key}" in e["figures"] for p in result["phases"] for e in p["evaluations"])
        ]
        keys += [(MEAN, "mean")] if keys and not prefix else []
        rows = tuple(
            (
                f"{phase['number']}: {phase['encoder']}",
                f"{entry['step']:,}",
                _number(entry["epoch"]),
                *(_figure_or_blank(entry["figures"], key) for key, _ in keys),
            )
            for phase in result["phases"]
            for entry in phase["evaluations"]
        )
        if keys and not prefix and (before := start_figures(result.get("start_comparison"))):
            rows = (("the start", "", "", *(_figure_or_blank(before, key) for key, _ in keys)), *rows)
        if keys:
            header = ("phase: encoder", "step", "epoch", *(word for _, word in keys))
            mean = "Mean: of the tasks' main figures that are defined, a correlation r counted as (r + 1) / 2."
            notes = () if prefix else (mean,)
            tables.append(Table(f"{name} of each evaluation", header, rows, notes, CURVES))
    for name, entry in result["predictions"].items():
        if "counts" in entry:
            rows = tuple(
                (f"gold {x}", *(f"{n:,}" for n in row)) for x, row in zip(entry["labels"], entry["counts"], strict=True)
            )
            note = f"Accuracy {entry['accuracy']:.4f}, macro F1 {entry['macro_f1']:.4f}: the saved model, float32, without torch."
            header = ("dev set", *(f"predicted {label}" for label in entry["labels"]))
            tables.append(Table(f"Confusions of {name}", header, rows, (note,), CONFUSIONS))
    return [*tables, *by_graph(result["predictions"]), *_gradients(result), _cost(result)]


def _start_notes(result: Json) -> list[str]:
    notes = [
        f"{result['model']} from {result['start']}; schedule {result['schedule']}, surgery {result['surgery']}, "
        f"{result['batch_size']} examples a step, seed {result['seed']}."
    ]
    if by := result["trained_by"]:
        notes.append(
            f"Trained on {by['date']} by {_threads(by['threads'])} of {by['cpu']}, commit {by['commit'] or 'unknown'}."
        )
    if datasets := result["start_trained_on"]:
        notes.append(
            f"{result['start']} was itself trained on {', '.join(datasets)}: what is evaluated on those is not clean of them."
        )
    return [*notes, *result.get("notes", [])]


def _best(result: Json, scored: Sequence[Json]) -> Table:
    """Return the figures of the weights that were saved, a row; and those that they are held against, if there are some."""
    figures = result["saved"]["figures"]
    keys = [(f"{t['name']}_{t['metric']}", f"{t['name']} {FIGURES[t['metric']]}") for t in scored] + [("mean", "mean")]
    rows = [
        (f"{result['model']}, step {result['saved']['step']:,}", *(_figure_or_blank(figures, key) for key, _ in keys))
    ]
    notes = ["One set of weights for all tasks, chosen by the mean on the dev sets."]
    if "mean" in figures and figures["mean"] is None:
        notes = [NO_BEST]
    if reference := result.get("reference"):
        theirs = reference["figures"]
        rows.append((reference["name"], *(_figure_or_blank(theirs, key) for key, _ in keys)))
        gaps = (_gap(figures, theirs, key) for key, _ in keys)
        rows.append(("difference", *gaps))
        notes += reference.get("notes", [])
    return Table("The saved model", ("dev figures", *(word for _, word in keys)), tuple(rows), tuple(notes))


def figure_text(value: float | None) -> str:
    """Return a dev figure as it is shown; None is one that is not defined."""
    return "undefined" if value is None else f"{value:.4f}"


def _figure_or_blank(figures: Json, key: str) -> str:
    return figure_text(figures[key]) if key in figures else ""


def _gap(ours: Json, theirs: Json, key: str) -> str:
    if key not in ours or key not in theirs:
        return ""
    known = ours[key] is not None and theirs[key] is not None
    return f"{ours[key] - theirs[key]:+.4f}" if known else "undefined"


def pair_name(pair: str) -> str:
    """Return a pair of tasks in words; the log has it as `a/b`."""
    return pair.replace("/", " and ")


def _gradients(result: Json) -> list[Table]:
    rows = []
    for phase in result["phases"]:
        for pair, gradient in phase["gradients"].items():
            lowest = min(gradient["depths"].items(), key=lambda item: float(item[1]), default=None)
            rows.append(
                (
                    f"{phase['number']}: {pair_name(pair)}",
                    f"{100 * gradient['conflict']:.1f} %",
                    f"{gradient['cosine']:+.4f}",
                    f"{lowest[1]:+.4f} (depth {lowest[0]})" if lowest is not None else "",
                )
            )
    header = ("phase: tasks", "steps in conflict", "mean cosine", "lowest mean cosine of a depth")
    notes = (
        "Of the tasks' gradients on the encoder, over all steps. A conflict is a cosine below 0.",
        "By depth: of one step in each line of the log. Depth 0 is the embeddings, without the table of words where it is "
        "looked up sparsely, as it is by default.",
    )
    if not rows:
        return []
    return [Table("Gradients against each other", header, tuple(rows), notes, SURGERY), *_when(result)]


def _when(result: Json) -> list[Table]:
    """Return in which part of each phase the tasks' gradients were in conflict."""
    rows = []
    for phase in result["phases"]:
        for pair in phase["gradients"]:
            curve = [value for value in phase["curves"].get(f"{CONFLICT}{pair}", ()) if value is not None]
            if len(curve) < 3:
                continue
            size = len(curve)
            parts = [curve[size * i // 3 : size * (i + 1) // 3] for i in range(3)]
            shares = [sum(part) / len(part) for part in parts]
            rows.append((f"{phase['number']}: {pair_name(pair)}", *(f"{100 * share:.0f} %" for share in shares)))
    header = ("phase: tasks", "first third of the steps", "second third", "last third")
    note = "The share of steps in conflict. Surgery changes the gradients of these steps."
    return [Table("When the tasks were in conflict", header, tuple(rows), (note,), SURGERY)] if rows else []


def _cost(result: Json) -> Table:
    rows = tuple(
        (
            f"{phase['number']}: {phase['encoder']}",
            f"{phase['steps']:,}",
            duration(used["prepared_seconds"]) if used.get("prepared_seconds") is not None else "",
            duration(used["seconds"]) if used["seconds"] is not None else "",
            _number(used["examples_per_second"], 1),
            f"{used['peak_mb']:,.0f} MB" if used["peak_mb"] else "",
        )
        for phase in result["phases"]
        for used in (phase["resources"],)
    )
    header = (
        "phase: encoder",
        "steps",
        "before the steps",
        "time of the steps",
        "examples/s, median",
        "peak memory of the process",
    )
    notes = (
        "Before the steps, texts are tokenized, and a frozen encoder encodes all of them once; its steps train the heads alone.",
        "Evaluations and checkpoints are left out of both times.",
        "The memory of a phase holds what the phases before it left.",
    )
    return Table("What it cost", header, rows, notes, COST)


def duration(seconds: float) -> str:
    """Return seconds in the unit that reads best."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.2f} s"


TABLES = {
    "sts": sts,
    "speed": speed,
    "search": search,
    "own_data": own_data,
    "pairs": pairs,
    "audit": audit_tables,
    "training": training,
}
"""The kinds of result, in the order of a report, each with what makes its tables."""
