"""results/model.json -> the tables of the shipped models, and the last part of their cards."""

from benchmarks.models.audit import audited
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.table import Json, Table

SETS = "sts12,sts13,sts15,stsb_test,sickr_test"
DIMS = (256, 128, 64)
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
SOURCES = (
    "nli: SNLI and MultiNLI: a tenth of the triplets of supervised SimCSE, and premises of another sample that have both an "
    "entailed and a contradicting hypothesis. quora: Quora question pairs: duplicates with a labelled or mined negative. "
    "captions: two captions of one image, Multi30k (Flickr30k). titles: titles and lead sentences of the English Wikipedia. "
    "texts: passages of one to eight sentences, leads and titles of the English Wikipedia, image captions, Quora questions and "
    "NLI hypotheses, without labels (`benchmarks/models/data.py`). Their licences differ (Wikipedia: CC BY-SA; Quora: its "
    "terms of use). The package contains none of the texts."
)
MARK = "<!-- figures -->"


def tables(result: Json) -> list[Table]:
    """Return the table of the shipped models: similarity, retrieval, size, and speed against the peer."""
    columns = {
        "stsb_test": "STS-B",
        "sickr_test": "SICK-R",
        "mean": "mean of 5 STS sets",
        "scifact": "SciFact",
        "cranfield": "Cranfield",
    }
    peer_bytes = next(iter(result["speed"].values()))["bytes"]
    rows = []
    for name, figures in result["quality"].items():
        size, ratio = "", ""
        if speed := result["speed"].get(name):
            size, ratio = f"{speed['bytes'][f'{name} (int8)'] / 1e6:.1f} MB", f"{speed['rate']['times_faster']:.2f}"
        elif name in peer_bytes:
            size, ratio = f"{peer_bytes[name] / 1e6:.1f} MB", "1"
        rows.append((name, *(f"{figures[key]:.2f}" if key in figures else "" for key in columns), size, ratio))
    cut = "; `[:128]`: the first 128 dimensions" if any("[:" in name for name in result["quality"]) else ""
    note = (
        f"Spearman x 100 (the five sets are STS12, 13, 15, STS-B test and SICK-R test), nDCG@10 x 100{cut}; "
        "last column: Quora questions a second in batches of 32, relative to sentence-transformers in the same run."
    )
    header = ("model", *columns.values(), "weights", "times as fast")
    return [Table("The shipped models", header, tuple(rows), (note, result["note"]))]


def summary_tables(result: Json) -> list[Table]:
    """Return the same table without the rows of shortened vectors."""
    return tables({**result, "quality": {k: v for k, v in result["quality"].items() if "[:" not in k}})


def thresholds(score: Json) -> str:
    """Return the paragraph about thresholds to start with."""
    p, s = score["paraphrase"], score["search"]
    precise = p["threshold_for_precision_0.9"]
    more = f" Of the pairs from {precise:.2f} on, nine of ten are duplicates." if precise is not None else ""
    return (
        f"Paraphrases: {p['threshold']:.2f} separates duplicate questions best (accuracy {p['accuracy']:.3f}, precision "
        f"{p['precision']:.3f}, recall {p['recall']:.3f} on {p['pairs']:,} other Quora dev pairs).{more} Search: "
        f"`--min-score {s['threshold']:.2f}` accepts {s['recall']:.3f} of the right articles and one in a thousand of the "
        "wrong ones. Thresholds depend on the texts: choose yours on pairs of your own."
    )


def card(name: str, result: Json) -> str:
    """Return the last part of a model's card."""
    figures, score = result["quality"], result["scores"][name]
    peer = f"{PEER_MODEL} (sentence-transformers)"
    columns = [*SETS.split(","), "mean", "scifact", "cranfield"]
    rows = tuple(
        (label, *(f"{figures[label][column]:.2f}" if column in figures[label] else "" for column in columns))
        for label in (name, *(f"{name}[:{dim}]" for dim in DIMS), peer)
    )
    quality = Table("Figures", ("model", *columns), rows)
    cosines = Table(
        "Cosines",
        ("pairs", *(f"{p} %" for p in PERCENTILES)),
        tuple((pairs, *(f"{row[str(p)]:.2f}" for p in PERCENTILES)) for pairs, row in score["percentiles"].items()),
    )
    ratio = result["speed"][name]["rate"]["times_faster"]
    parts = [
        f"{MARK}\n## Where the data come from",
        SOURCES,
        "## Figures of the int8 graph in the package",
        f"Spearman x 100 on STS sets, nDCG@10 x 100 on SciFact and Cranfield (relevant: score > 0). {result['note']}",
        quality.markdown(),
        f"Speed: {ratio:.2f} times as many Quora questions a second as {peer}, in batches of 32, alternating "
        f"({result['machine']['threads']} threads).",
        "## What a cosine means",
        "Percentiles of the cosines of pairs:",
        cosines.markdown(),
        thresholds(score),
        "## Audit",
        *audited(result["audit"][name], result["audit"][PEER_MODEL]),
        f"`{result['command']}`, {result['machine']['date']}, {result['machine']['cpu']}.",
    ]
    return "\n\n".join(parts) + "\n"
