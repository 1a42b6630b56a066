"""results/model_static.json -> the table of `sbert-mini-static`, and its card."""

from pathlib import Path

from benchmarks.models.audit import audited
from benchmarks.models.card import PERCENTILES, SETS, thresholds
from sbert_mini.evaluation.table import Json, Table

NAME, TEACHER = "sbert-mini-static", "sbert-mini"
DIMS = (256, 128, 64)
ABOUT = """---
base_model: sbert-mini
datasets:
- snli
- multi_nli
- embedding-data/flickr30k-captions
- embedding-data/QQP
- wikipedia
library_name: sentence-transformers
license: apache-2.0
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- sentence-similarity
- sbert-mini
---

# sbert-mini-static

A table of token vectors: a text's vector is the mean of its tokens' vectors, scaled to length 1. There is no encoder,
so the order of words does not count. The vectors are in the space of sbert-mini: a query of one may search an index of
the other.

```sh
sbmini encode 'a sentence' -m sbert-mini-static
```

The package contains the table with 4 bits a component. `sbert_mini.load('sbert-mini-static').save(folder)` makes a
directory for plain sentence-transformers (`StaticEmbedding`, float32, with the same vectors).

The first 256, 128, 64 components of its vectors can be used alone: `sbmini encode --dim 256`, or `truncate_dim` in
Python.

## Data

The teacher is sbert-mini. The table is fitted to its vectors of texts without labels: NLI sentences, image captions,
Quora questions, sentences of news and forums, sentences, titles, leads and passages of the English Wikipedia. Then
pairs are contrasted: passages of Wikipedia with a sentence taken out of them, NLI triplets (a tenth of those of
supervised SimCSE), two captions of one image (Multi30k), duplicate Quora questions, Wikipedia titles and leads. No text
is taken that stands in STS12, 13, 15, STS-B or SICK (their training parts too), in the Quora dev set, or in SciFact or
Cranfield. Their licences differ (Wikipedia: CC BY-SA; Quora: its terms of use). The package contains none of the texts.
The teacher's own start, all-MiniLM-L6-v2, was trained on AllNLI, Quora duplicates, Flickr30k and S2ORC: what is
evaluated on those is not clean of them.

The words that sbert-mini's tokenizer splits most often in these texts have rows of their own.

## Recipe

`benchmarks/models/static.py`; EXPERIMENTS.md reports what was tried.

"""
MARK = "<!-- figures -->"


def tables(result: Json) -> list[Table]:
    """Return the table of the static model beside its teacher, and that of retrieval by who encodes what."""
    columns = {"stsb_test": "STS-B", "sickr_test": "SICK-R", "mean": "mean of 5 STS sets"}
    speed, size = result["speed"], {NAME: f"{result['bytes'] / 1e6:.1f} MB"}
    ratios = {NAME: f"{speed['times_sbert_mini']:.1f}"}
    rows = []
    for name, figures in result["similarity"].items():
        whole = name in ratios
        searched = [
            f"{result['retrieval'][c][name][name]['ndcg_at_10']:.2f}" if whole else "" for c in result["retrieval"]
        ]
        rows.append(
            (name, *(f"{figures[key]:.2f}" for key in columns), *searched, size.get(name, ""), ratios.get(name, ""))
        )
    low, high = speed["lowest_and_highest"]
    note = (
        "Spearman x 100, nDCG@10 x 100; last column: Quora questions a processor second relative to sbert-mini, "
        f"measured alternately ({speed['rounds']} rounds, {low:.1f} to {high:.1f}; {result['machine']['threads']} threads)."
    )
    header = ("model", *columns.values(), "SciFact", "Cranfield", "on the disk", "times as fast")
    return [Table("The static model", header, tuple(rows), (note,)), across(result)]


def across(result: Json) -> Table:
    """Return the table of retrieval by who encodes the queries and who encodes the documents."""
    rows = tuple(
        (
            who,
            whose,
            *(
                f"{found['ndcg_at_10']:.2f} ({found['interval'][0]:.1f} to {found['interval'][1]:.1f})"
                for found in (result["retrieval"][c][who][whose] for c in result["retrieval"])
            ),
        )
        for who in (NAME, TEACHER)
        for whose in (NAME, TEACHER)
    )
    note = f"nDCG@10 x 100, with the 95 % interval of the bootstrap over queries. {result['note']}"
    return Table(
        "Queries of one model, documents of the other", ("queries", "documents", "SciFact", "Cranfield"), rows, (note,)
    )


def card(result: Json) -> str:
    """Return the last part of the card."""
    sets = SETS.split(",")
    rows = []
    for name, figures in result["similarity"].items():
        bounds = figures["intervals"]
        found = (f"{figures[s]:.2f} ({bounds[s][0]:.1f} to {bounds[s][1]:.1f})" for s in sets)
        rows.append((name, *found, f"{figures['mean']:.2f}"))
    quality = Table("Figures", ("model", *sets, "mean"), tuple(rows))
    score, audit, speed = result["scores"][NAME], result["audit"], result["speed"]
    cosines = Table(
        "Cosines",
        ("pairs", *(f"{p} %" for p in PERCENTILES)),
        tuple((pairs, *(f"{row[str(p)]:.2f}" for p in PERCENTILES)) for pairs, row in score["percentiles"].items()),
    )
    words = audited(audit[NAME], audit[TEACHER])
    parts = [
        f"{MARK}\n## Figures",
        f"Spearman x 100 with the 95 % interval of the bootstrap. {result['note']}",
        quality.markdown(),
        "nDCG@10 x 100 by who encodes the queries and who the documents:",
        across(result).markdown(),
        f"Speed: {speed['times_sbert_mini']:.1f} times as many Quora questions a processor second as sbert-mini, in batches "
        f"of 32, alternating ({result['machine']['threads']} threads).",
        "## What a cosine means",
        "Percentiles of the cosines of pairs:",
        cosines.markdown(),
        thresholds(score),
        "## Audit",
        *(word.replace("all-MiniLM-L6-v2", TEACHER) for word in words),
        f"`{result['command']}`, {result['machine']['date']}, {result['machine']['cpu']}.",
    ]
    return ABOUT + "\n\n".join(parts) + "\n"


def write_card(file: Path, result: Json) -> None:
    """Write the card."""
    file.write_text(card(result), "utf-8")
