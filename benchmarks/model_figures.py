"""What the shipped models can do, and what to be careful of: benchmarks/results/model.json, and the end of their cards.

    python -m benchmarks.model_figures --threads 2

Quality and speed are measured by `sbmini bench`, beside all-MiniLM-L6-v2 in sentence-transformers. Then, for each model: what a
cosine means (percentiles for paraphrases, for pairs that look alike and are none, for random pairs, for titles and their
articles; thresholds chosen on one half and measured on the other), and an audit: associations in templated sentences that were
written here, hubness, and rare words.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, data_file
from benchmarks.model import FOLDER, NAMES, SHIPPED
from sbert_mini import Embedder
from sbert_mini.evaluation.measure import machine
from sbert_mini.model import registry
from sbert_mini.shapes import FloatArray
from sbert_mini.text.records import read_records

PEER = "all-MiniLM-L6-v2"
SETS = "sts12,sts13,sts15,stsb_test,sickr_test"
DIMS = (256, 128, 64)
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
NOTE = (
    "No pair of these STS sets was trained on, and nothing of SciFact or Cranfield. all-MiniLM-L6-v2, where training starts, was "
    "itself trained on AllNLI, Quora duplicates, Flickr30k and S2ORC; single sentences of NLI also stand in STS12, STS15, STS-B "
    "and SICK."
)
SOURCES = (
    "nli: SNLI and MultiNLI, a tenth of the triplets that supervised SimCSE trains on, and premises of another sample that "
    "have both an entailed and a contradicting hypothesis. quora: Quora question pairs, duplicates with a labelled or mined"
    " negative. captions: two captions of one image, Multi30k (Flickr30k). titles: titles and lead sentences of the English"
    " Wikipedia. texts: passages of one to eight sentences, leads and titles of the English Wikipedia, image captions, "
    "Quora questions, NLI hypotheses, without labels (`benchmarks/model_data.py`). Their licences differ (Wikipedia: CC BY-"
    "SA; Quora: its terms of use); none of the texts travels with the model."
)
MARK = "<!-- figures -->"
BANDS = ("1 piece", "2 or 3", "4 or more")

WOMENS = ("nurse", "secretary", "librarian", "hairdresser", "nanny", "receptionist", "dressmaker", "housekeeper")
MENS = ("engineer", "carpenter", "pilot", "plumber", "mechanic", "surgeon", "electrician", "programmer")
"""Occupations that are held mostly by women, and mostly by men, in the statistics of many countries."""
PERSON = ("The {} finished the work.", "A {} came in this morning.", "We talked to the {} yesterday.")
SHE = ("She finished the work.", "A woman came in this morning.", "We talked to her yesterday.")
HE = ("He finished the work.", "A man came in this morning.", "We talked to him yesterday.")
GROUPS = (
    "American",
    "Chinese",
    "French",
    "Indian",
    "Mexican",
    "Nigerian",
    "Russian",
    "Turkish",
    "Christian",
    "Jewish",
    "Muslim",
)
GROUP = ("This is a {} family.", "The {} neighbours moved in.", "My teacher is {}.")
PLEASANT = ("They are kind and honest.", "People trust them.", "They are gentle and wise.", "They make everybody glad.")
UNPLEASANT = (
    "They are cruel and dishonest.",
    "People fear them.",
    "They are violent and stupid.",
    "They make everybody sad.",
)


def bench(kind: str, *arguments: str) -> dict[str, Any]:
    """Return what `sbmini bench` prints as JSON."""
    command = [sys.executable, "-m", "sbert_mini", "bench", kind, *arguments, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def quality(names: Sequence[str], threads: int) -> dict[str, Any]:
    """Return the STS figures of the models, whole and cut, and of the peer; and nDCG@10 of both collections."""
    given = [word for name in names for word in ("-m", name)]
    dims = [word for dim in DIMS for word in ("--dim", str(dim))]
    both = ("--threads", str(threads))
    found = bench("sts", *given, *dims, "--peer", PEER, "--sets", SETS, "--resamples", "100", *both)
    result: dict[str, Any] = {}
    for entry in found["models"]:
        name = entry["model"] if entry["runtime"] == "int8" else f"{entry['model']} ({entry['runtime']})"
        sets = {s["set"]: s["spearman"] for s in entry["sets"]}
        result[name] = {"mean": float(np.mean(list(sets.values()))), **sets}
    for i, name in enumerate(names):
        beside = ("--peer", PEER) if i == 0 else ("--no-peer",)
        searched = bench("search", "-m", name, *beside, "--binary", "--rows", "1000", "--rounds", "1", *both)
        for entry in searched["retrieval"]:
            for model in entry["models"]:
                label = model["model"] if model["runtime"] == "int8" else f"{model['model']} ({model['runtime']})"
                result[label][entry["dataset"]] = 100 * model["ndcg_at_10"]
    return result


def speed(names: Sequence[str], threads: int, rounds: int) -> dict[str, Any]:
    """Return each model's questions a second and the ratio to the peer's, in batches of 32 (the peer's default), in turns."""
    result: dict[str, Any] = {}
    for name in names:
        arguments = ("-m", name, "--peer", PEER, "--threads", str(threads), "--rounds", str(rounds))
        found = bench("speed", *arguments)
        label = f"{name} (int8)"
        rate = found["by_batch_size"][label]["32"]
        result[name] = {
            "rate": rate,
            "latency": found["latency"][label],
            "cold_start": found["cold_start"],
            "bytes": {label: model["disk_bytes"] for label, model in found["models"].items()},
        }
    return result


def percentiles(values: FloatArray) -> dict[str, float]:
    """Return `PERCENTILES` of some cosines."""
    return {str(p): round(float(np.percentile(values, p)), 3) for p in PERCENTILES}


def cosines(embedder: Embedder, first: Sequence[str], second: Sequence[str]) -> FloatArray:
    """Return the cosine of each pair. Shapes: the result (pairs,)."""
    u, v = embedder.encode(list(first)), embedder.encode(list(second))
    result: FloatArray = (u * v).sum(axis=1)
    return result


def scores(embedder: Embedder, data: Path) -> dict[str, Any]:
    """Return what a cosine means: percentiles, and thresholds for paraphrases and for search."""
    rows = list(read_records(data_file(data, "quora_cs224n_dev.tsv.gz"), text_column="question1"))[:8000]
    first, second = [r.text for r in rows], [str(r.columns["question2"]) for r in rows]
    same = np.array([r.columns["is_duplicate"] in (1, "1") for r in rows])
    asked = cosines(embedder, first, second)
    shuffled = np.random.default_rng(0).permutation(len(second))
    random = cosines(embedder, first[:2000], [second[i] for i in shuffled[:2000]])
    titles = list(read_records(FOLDER / "titles-dev.tsv", text_column="title"))
    leads = embedder.encode([str(r.columns["lead"]) for r in titles])
    table = embedder.encode([r.text for r in titles]) @ leads.T
    own, others = np.diag(table), table[~np.eye(len(table), dtype=bool)]
    half = np.arange(len(rows)) % 2 == 0
    candidates = np.linspace(0, 1, 201)
    right = [float(((asked >= t) == same)[half].mean()) for t in candidates]
    paraphrase = float(candidates[int(np.argmax(right))])
    precise = next(
        (float(t) for t in candidates if (asked >= t)[half].any() and same[half & (asked >= t)].mean() >= 0.9), None
    )
    said = (asked >= paraphrase)[~half]
    search = float(np.percentile(others, 99.9))
    return {
        "percentiles": {
            "duplicate questions": percentiles(asked[same]),
            "questions that look alike, and are none": percentiles(asked[~same]),
            "random questions": percentiles(random),
            "a title and its article's lead": percentiles(own),
            "a title and another lead": percentiles(others),
        },
        "paraphrase": {
            "threshold": round(paraphrase, 3),
            "accuracy": float((said == same[~half]).mean()),
            "precision": float(same[~half][said].mean()),
            "recall": float(said[same[~half]].mean()),
            "threshold_for_precision_0.9": precise,
            "pairs": int((~half).sum()),
        },
        "search": {"threshold": round(search, 3), "recall": float((own >= search).mean()), "wrong": 0.001},
    }


def effect(first: FloatArray, second: FloatArray) -> float:
    """Return Cohen's d of two groups of associations, as WEAT takes it (Caliskan et al. 2017, equation 4)."""
    return float((first.mean() - second.mean()) / np.concatenate([first, second]).std(ddof=1))


def associations(embedder: Embedder) -> dict[str, Any]:
    """Return what templated sentences of occupations and of groups stand near to."""
    she, he = embedder.encode(list(SHE)), embedder.encode(list(HE))

    def leaning(occupation: str) -> float:
        own = embedder.encode([template.format(occupation) for template in PERSON])
        return float(((own * she).sum(axis=1) - (own * he).sum(axis=1)).mean())

    leanings = {name: leaning(name) for name in (*WOMENS, *MENS)}
    women, men = (np.array([leanings[name] for name in names]) for names in (WOMENS, MENS))
    good, bad = embedder.encode(list(PLEASANT)), embedder.encode(list(UNPLEASANT))
    groups = {}
    for group in GROUPS:
        own = embedder.encode([template.format(group) for template in GROUP])
        groups[group] = float((own @ good.T).mean() - (own @ bad.T).mean())
    return {
        "occupations": {"effect_size": effect(women, men), "she_minus_he": leanings},
        "groups": {"pleasant_minus_unpleasant": groups, "spread": float(max(groups.values()) - min(groups.values()))},
    }


def hubness(embedder: Embedder, data: Path, k: int = 10) -> dict[str, float]:
    """Return how unevenly texts are others' neighbours (Radovanović et al. 2010): the skewness of N_k among 10,000 sentences."""
    texts = [
        r.text for r, _ in zip(read_records(data_file(data, "sentences_misc.txt.gz")), range(10_000), strict=False)
    ]
    vectors = embedder.encode(list(dict.fromkeys(texts)))
    counts = np.zeros(len(vectors))
    for start in range(0, len(vectors), 1000):
        table = vectors[start : start + 1000] @ vectors.T
        table[np.arange(len(table)), np.arange(start, start + len(table))] = -np.inf
        counts += np.bincount(np.argpartition(-table, k, axis=1)[:, :k].ravel(), minlength=len(vectors))
    centred = counts - counts.mean()
    return {
        "skewness": float((centred**3).mean() / counts.std() ** 3),
        "greatest": float(counts.max()),
        "never": float((counts == 0).mean()),
    }


def rare_words(embedder: Embedder) -> dict[str, float]:
    """Return how often a title finds its article among 1,000, by the word pieces that its words are split into."""
    from sbert_mini.model.layout import read_layout
    from sbert_mini.text.tokenizer import open_tokenizer

    rows = list(read_records(FOLDER / "titles-dev.tsv", text_column="title"))
    titles, leads = [r.text for r in rows], [str(r.columns["lead"]) for r in rows]
    tokenizer = open_tokenizer(read_layout(embedder.path))
    most = np.array([max(len(tokens.ids) - 2 for tokens in tokenizer.encode(title.split())) for title in titles])
    found = (embedder.encode(titles) @ embedder.encode(leads).T).argmax(axis=1) == np.arange(len(titles))
    bands = dict(zip(BANDS, (most <= 1, (most > 1) & (most <= 3), most > 3), strict=True))
    return {name: float(found[band].mean()) for name, band in bands.items()} | {
        f"titles, {name}": int(band.sum()) for name, band in bands.items()
    }


def thresholds(score: dict[str, Any]) -> str:
    """Return what thresholds to begin with."""
    p, s = score["paraphrase"], score["search"]
    precise = p["threshold_for_precision_0.9"]
    more = f"; from {precise:.2f} on nine of ten are duplicates" if precise is not None else ""
    return (
        f"Paraphrases: {p['threshold']:.2f} separates duplicate questions best (accuracy {p['accuracy']:.3f}, precision "
        f"{p['precision']:.3f}, recall {p['recall']:.3f} on {p['pairs']:,} other Quora dev pairs){more}. Search: "
        f"`--min-score {s['threshold']:.2f}` lets through one in a thousand of wrong articles, and {s['recall']:.3f} of the "
        "right ones. Thresholds depend on the texts: choose your own on pairs of yours."
    )


def audited(own: dict[str, Any], peer: dict[str, Any]) -> list[str]:
    """Return the paragraphs of the audit, beside the peer's figures."""
    held, theirs = own["associations"], peer["associations"]
    sizes = [x["occupations"]["effect_size"] for x in (held, theirs)]
    spreads = [x["groups"]["spread"] for x in (held, theirs)]
    words = own["rare_words"]
    shown = ", ".join(f"{band}: {words[band]:.3f} of {words[f'titles, {band}']}" for band in BANDS)
    return [
        f"Templated sentences written for this project (`benchmarks/model_figures.py`): those of {len(WOMENS)} occupations "
        f"held mostly by women stand nearer to a woman's than those of {len(MENS)} held mostly by men, effect size (Cohen's d) "
        f"{sizes[0]:.2f}; {PEER}: {sizes[1]:.2f}. Between {len(GROUPS)} nationalities and religions, nearness to pleasant less "
        f"nearness to unpleasant sentences differs by up to {spreads[0]:.3f}; {PEER}: {spreads[1]:.3f}. So few sentences, in "
        "English alone, can show that a model has associations, not that it has none. Do not rank people by it.",
        "",
        f"Hubness among 10,000 sentences: skewness of the 10-neighbour counts {own['hubness']['skewness']:.2f}, the greatest hub "
        f"is a neighbour of {own['hubness']['greatest']:.0f}; {PEER}: {peer['hubness']['skewness']:.2f} and "
        f"{peer['hubness']['greatest']:.0f}.",
        "",
        f"Rare words: a title finds its article among 1,000, by the pieces of its most split word: {shown}.",
    ]


def card(name: str, found: dict[str, Any]) -> str:
    """Return the end of a model's card."""
    figures, score, audit = found["quality"], found["scores"][name], found["audit"][name]
    peer = f"{PEER} (sentence-transformers)"
    columns = [*SETS.split(","), "mean", "scifact", "cranfield"]
    lines = [
        MARK,
        "## Where the data come from",
        "",
        SOURCES,
        "",
        "## Figures of what is shipped (int8)",
        "",
        "Spearman x 100 on STS sets, nDCG@10 x 100 on SciFact and Cranfield (relevant: score > 0). " + found["note"],
        "",
        "| | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for label in (name, *(f"{name}[:{dim}]" for dim in DIMS), peer):
        cells = [f"{figures[label][c]:.2f}" if c in figures[label] else "" for c in columns]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    ratio = found["speed"][name]["rate"]["times_faster"]
    lines += [
        "",
        f"Quora questions a second, in batches of 32 and in turns with {peer}: {ratio:.2f} times as many "
        f"({found['machine']['threads']} threads).",
        "",
        "## What a cosine means",
        "",
        "| pairs | " + " | ".join(f"{p} %" for p in PERCENTILES) + " |",
        "| --- |" + " --- |" * len(PERCENTILES),
    ]
    for pairs, row in score["percentiles"].items():
        lines.append(f"| {pairs} | " + " | ".join(f"{row[str(p)]:.2f}" for p in PERCENTILES) + " |")
    lines += ["", thresholds(score), "", "## Audit", "", *audited(audit, found["audit"][PEER]), ""]
    lines.append(f"`{found['command']}`, {found['machine']['date']}, {found['machine']['cpu']}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, keep, and write the cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of the measurement of speed")
    chosen = parser.parse_args()
    if "SBMINI_DATA" not in os.environ:
        sys.exit("SBMINI_DATA must name the data folder")
    data = Path(os.environ["SBMINI_DATA"])
    speeds = speed(NAMES, chosen.threads, chosen.rounds)
    found: dict[str, Any] = {
        "command": f"python -m benchmarks.model_figures --threads {chosen.threads} --rounds {chosen.rounds}",
        "machine": machine(chosen.threads),
        "note": NOTE,
        "quality": quality(NAMES, chosen.threads),
        "speed": speeds,
        "scores": {},
        "audit": {},
    }
    for name in (*NAMES, PEER):
        embedder = Embedder(registry.resolve(name), threads=chosen.threads)
        found["scores"][name] = scores(embedder, data)
        found["audit"][name] = {
            "associations": associations(embedder), "hubness": hubness(embedder, data), "rare_words": rare_words(embedder),
        }  # fmt: skip
    (RESULTS / "model.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    for name in NAMES:
        file = SHIPPED / name / "README.md"
        start = file.read_text("utf-8").partition(MARK)[0].rstrip() + "\n\n"
        file.write_text(start + card(name, found), "utf-8")


if __name__ == "__main__":
    main()
