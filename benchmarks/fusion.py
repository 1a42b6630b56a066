"""How a ranking by meaning and one by words become one: reciprocal ranks against weighted normalized scores.

    python -m benchmarks.fusion --data ../shared/data

The method, its normalization and its weight are chosen on the tuning queries of five sets: the best mean nDCG@10 of both models
among the settings that are nowhere significantly worse there than meaning alone; the best mean where each is worse somewhere.
What `search` does has a row of its own, with the settings that an earlier run chose. Figures are those of the other queries.
SciFact has qrels_train and a test set; of the others, half of the queries are for tuning (seed 0). build/fusion has the indexes.

    scifact, cranfield    the collections of the data folder
    quora     a question of quora_cs224n_dev -> its duplicates among 20,000 questions; none of them is in quora_train
    captions  a caption -> the other four of its image (val and test_2016) among 20,000
    leads     a title -> its lead among 20,000; the titles are the last 1,000, which no training read
"""

import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks import harness
from benchmarks.harness import data_file
from benchmarks.models.data import TITLES_DEV, rows
from sbert_mini import Embedder, IndexWriter, Record, SearchIndex
from sbert_mini.evaluation.judgments import read_judgments
from sbert_mini.evaluation.retrieval import query_measures, read_collection
from sbert_mini.evaluation.significance import compare
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.search.fusion import DEFAULT_WEIGHT, HYBRID_DEPTH, SPARE_BM25
from sbert_mini.search.ranking import greatest_bm25, rows_by_words, stored_cosines

FOLDER = Path("build/fusion")
MODELS = ("sbert-mini", "sbert-mini-fast")
ROWS, QUERIES, SEED = 20_000, 2000, 0
RESAMPLES, TUNING_RESAMPLES = 10_000, 1000
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(6, 20))
RECIPROCAL = "reciprocal ranks, constant 60, equal weights"
BOUNDED = "cosines, and BM25 by the greatest score possible"
CHOSEN = f"{BOUNDED} and a constant"
SHIPPED = f"what search does: the same, constant {SPARE_BM25:g}, weight {DEFAULT_WEIGHT:g}"
DISCOUNTS = [1 / math.log2(rank + 2) for rank in range(10)]
SPARES = (5, 10, 20, 30, 40, 50, 70)
"""Constants that are added to the greatest score."""
WORDS_DEPTH = 1000
"""Rows whose BM25 scores are known, for fusing with the exact scores of the rows that meaning alone finds."""

Relevant: TypeAlias = dict[str, dict[str, int]]
Ranking: TypeAlias = list[tuple[str, float]]
Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class FusionSet:
    """A test collection in two parts.

    Attributes:
        name: of the set.
        documents: id -> text.
        queries: id -> text.
        tuning: the judgments of the queries that settings are chosen on.
        test: the judgments of the others.
    """

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    tuning: Relevant
    test: Relevant


@dataclass(frozen=True)
class Candidates:
    """A query's candidates: the documents of the first rows by meaning and by words.

    Attributes:
        documents: their ids, in the order of the ids.
        meaning: the rank of each by cosine, from 1; infinite where it is not among the first.
        words: the rank of each by BM25, likewise.
        cosines: of each.
        bm25: of each; 0 where it is not known.
        first_bm25: of each that is among the first by words; 0 elsewhere.
        greatest_bm25: what no document's BM25 score can exceed.

    Shapes:
        all arrays: (documents,).
    """

    documents: tuple[str, ...]
    meaning: Array
    words: Array
    cosines: Array
    bm25: Array
    first_bm25: Array
    greatest_bm25: float


def candidates_from(
    meaning: Ranking, words: Ranking, cosines: Mapping[str, float], bm25: Mapping[str, float], greatest_bm25: float
) -> Candidates:
    """Return candidates: two rankings, best first, with the cosines and the known BM25 scores of their documents."""
    documents = tuple(sorted(cosines))
    ranks = [{d: rank for rank, (d, _) in enumerate(ranking, start=1)} for ranking in (meaning, words)]
    of_meaning, of_words = (np.array([of.get(d, np.inf) for d in documents]) for of in ranks)
    scores = np.array([bm25.get(d, 0.0) for d in documents])
    own = np.array([cosines[d] for d in documents])
    return Candidates(
        documents, of_meaning, of_words, own, scores, np.where(np.isfinite(of_words), scores, 0.0), greatest_bm25
    )


# --- sets --------------------------------------------------------------------------------------------------------------


def halves(relevant: Relevant) -> tuple[Relevant, Relevant]:
    """Return the judgments of two random halves of the queries."""
    order = np.random.default_rng(SEED).permutation(sorted(relevant)).tolist()
    return tuple(
        {query: relevant[query] for query in part} for part in (order[: len(order) // 2], order[len(order) // 2 :])
    )  # type: ignore[return-value]


def made(name: str, groups: Sequence[tuple[str, Sequence[str]]], others: Sequence[str]) -> FusionSet:
    """Return a set of queries, each with its relevant texts, among other texts: `ROWS` different ones in all."""
    documents: dict[str, str] = {}
    queries = {f"q{number}": query for number, (query, _) in enumerate(groups)}
    for _, texts in groups:
        for text in texts:
            documents.setdefault(text, f"d{len(documents)}")
    asked = set(queries.values())
    for text in others:
        if len(documents) >= ROWS:
            break
        if text not in asked:
            documents.setdefault(text, f"d{len(documents)}")
    relevant = {f"q{n}": {documents[text]: 1 for text in texts} for n, (_, texts) in enumerate(groups)}
    return FusionSet(name, {i: text for text, i in documents.items()}, queries, *halves(relevant))


def drawn(items: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    """Return the items in random order."""
    return [items[i] for i in rng.permutation(len(items)).tolist()]


def quora(data: Path) -> FusionSet:
    """Return questions with their duplicates: joined by labels, over several pairs too."""
    rng = np.random.default_rng(SEED)
    seen = {text for pair in rows(data, "quora_train", "question1", "question2") for text in pair}
    pairs = list(rows(data, "quora_cs224n_dev", "question1", "question2", "is_duplicate"))
    group = {text: text for first, second, _ in pairs for text in (first, second)}

    def root(text: str) -> str:
        while group[text] != text:
            group[text] = group[group[text]]
            text = group[text]
        return text

    for first, second, label in pairs:
        if float(label) == 1:
            group[root(first)] = root(second)
    members: dict[str, list[str]] = defaultdict(list)
    for text in group:
        members[root(text)].append(text)
    joined = [texts for texts in members.values() if len(texts) > 1 and not seen.intersection(texts)]
    groups = [(texts[0], texts[1:]) for texts in (drawn(texts, rng) for texts in drawn(joined, rng)[:QUERIES])]
    return made("quora", groups, drawn(list(group), rng))


def captions(data: Path) -> FusionSet:
    """Return captions with the others of their images, among captions of all images."""
    rng = np.random.default_rng(SEED)
    of_image: dict[str, list[str]] = defaultdict(list)
    others = []
    for caption, image, split in rows(data, "captions_multi30k", "caption", "image", "split"):
        if split != "train" and caption not in of_image[image]:
            of_image[image].append(caption)
        others.append(caption)
    shuffled = [drawn(texts, rng) for texts in drawn(list(of_image.values()), rng) if len(texts) > 1][:QUERIES]
    return made("captions", [(texts[0], texts[1:]) for texts in shuffled], drawn(others, rng))


def leads(data: Path) -> FusionSet:
    """Return titles with their leads, among leads of all titles."""
    rng = np.random.default_rng(SEED)
    pairs = list(rows(data, "pairs_wiki_title_lead", "title", "lead"))
    of_title: dict[str, list[str]] = defaultdict(list)
    for title, lead in pairs[-TITLES_DEV:]:
        of_title[title].append(lead)
    return made("leads", list(of_title.items()), drawn([lead for _, lead in pairs[:-TITLES_DEV]], rng))


def scifact(data: Path) -> FusionSet:
    """Return SciFact: its training judgments to choose on, its test judgments."""
    folder = data / "retrieval" / "scifact"
    collection = read_collection(folder)
    texts = {str(row["_id"]): str(row["text"]) for row in json_lines(folder / "queries.jsonl.gz")}
    tuning = read_judgments(folder / "qrels_train.tsv").grades
    return FusionSet(
        "scifact", collection.documents, texts, tuning, {q: dict(d) for q, d in collection.relevant.items()}
    )


def cranfield(data: Path) -> FusionSet:
    """Return Cranfield: two halves of its queries; each judgment above 0 counts as 1."""
    collection = read_collection(data / "retrieval" / "cranfield", binary=True)
    relevant = {query: dict(documents) for query, documents in collection.relevant.items()}
    return FusionSet("cranfield", collection.documents, collection.queries, *halves(relevant))


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a gzipped file of JSON lines."""
    import gzip

    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


SETS: Sequence[Callable[[Path], FusionSet]] = (scifact, cranfield, quora, captions, leads)


# --- methods -----------------------------------------------------------------------------------------------------------


def by_meaning(candidates: Candidates) -> Array:
    """Return the ranking by meaning."""
    return -candidates.meaning


def by_words(candidates: Candidates) -> Array:
    """Return the ranking by words."""
    return -candidates.words


def reciprocal_ranks(candidates: Candidates, *, constant: float, weight: float) -> Array:
    """Return `weight / (constant + rank by meaning) + (1 - weight) / (constant + rank by words)`."""
    return weight / (constant + candidates.meaning) + (1 - weight) / (constant + candidates.words)


def weighted_scores(candidates: Candidates, *, bounds: str, weight: float, exact: bool) -> Array:
    """Return `weight · cosine + (1 - weight) · BM25`, each normalized to [0, 1] over the query's candidates.

    Args:
        candidates: of the query.
        bounds: `min-max`: the lowest and the highest score become 0 and 1. `theoretical`: the lowest possible one, -1 of a cosine
            and 0 of BM25, and the highest (Bruch, Gai and Ingber 2023, arXiv 2210.11934, "TM2C2").
        weight: the share of meaning.
        exact: BM25 scores of the documents that the ranking by words lacks, as far as they are known; else they count as 0.
    """
    cosines = normalized(candidates.cosines, None if bounds == "min-max" else -1.0)
    words = normalized(candidates.bm25 if exact else candidates.first_bm25, None if bounds == "min-max" else 0.0)
    return weight * cosines + (1 - weight) * words


def bounded_scores(candidates: Candidates, *, weight: float, spare: float) -> Array:
    """Return `weight · cosine + (1 - weight) · BM25 / (greatest BM25 possible + spare)`: `search.fusion.fused`."""
    per_bm25 = (1 - weight) / (candidates.greatest_bm25 + spare or 1.0)
    return weight * candidates.cosines + per_bm25 * candidates.bm25


def normalized(values: Array, least: float | None) -> Array:
    """Return scores with the least (None for their own) as 0 and their greatest as 1; all 0 where the two are equal."""
    low = values.min() if least is None else least
    span = values.max() - low
    return (values - low) / span if span > 0 else np.zeros(len(values))


def first_ten(scores: Array, candidates: Candidates) -> list[str]:
    """Return the ten documents of the greatest scores, the greatest first; ties by id. A score of -inf is not ranked."""
    order = np.argsort(-scores, kind="stable")[:10]
    return [candidates.documents[place] for place in order.tolist() if scores[place] > -np.inf]


Method: TypeAlias = Callable[[Candidates], Array]


def families() -> dict[str, dict[str, Method]]:
    """Return the kinds of fusion, each with its settings."""
    made: dict[str, dict[str, Method]] = {RECIPROCAL: {"": partial(reciprocal_ranks, constant=60, weight=0.5)}}
    made["reciprocal ranks, constant and weight chosen"] = {
        f"constant {c}, weight {w}": partial(reciprocal_ranks, constant=c, weight=w)
        for c in (5, 10, 20, 40, 60)
        for w in (0.3, 0.4, 0.5, 0.6, 0.7)
    }
    for bounds in ("min-max", "theoretical"):
        for exact in (False, True):
            name = f"scores, {bounds}" + (", BM25 of all candidates" if exact else "")
            made[name] = {
                f"weight {w}": partial(weighted_scores, bounds=bounds, weight=w, exact=exact) for w in WEIGHTS
            }
    made[BOUNDED] = {f"weight {w}": partial(bounded_scores, weight=w, spare=0) for w in WEIGHTS}
    made[CHOSEN] = {
        f"{spare}, weight {w}": partial(bounded_scores, weight=w, spare=spare)
        for spare in SPARES
        for w in WEIGHTS
        if 0.4 <= w <= 0.7
    }
    made[SHIPPED] = {"": partial(bounded_scores, weight=DEFAULT_WEIGHT, spare=SPARE_BM25)}
    return made


# --- measuring ---------------------------------------------------------------------------------------------------------


def opened(collection: FusionSet, model: str, threads: int) -> SearchIndex:
    """Return the set's index by a model, made once."""
    path = FOLDER / f"{collection.name}-{model}"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        writer = IndexWriter(path, Embedder(model, threads=threads), show_progress_bar=True)
        writer.create(Record(text, identity) for identity, text in collection.documents.items() if text.strip())
    return SearchIndex(path, threads=threads)


def candidates_of(index: SearchIndex, texts: Sequence[str]) -> Iterator[Candidates]:
    """Yield the candidates of each query."""
    ids = [row.id for row in index.rows()]
    queries, _ = index.embedder().encode_queries(list(texts))
    cosines, near = index.nearest(queries, HYBRID_DEPTH, exact=True)
    segments = index._store.segments
    for number, text in enumerate(texts):
        words = rows_by_words(index._words, segments, text, WORDS_DEPTH, [None] * len(segments))
        first = words[:HYBRID_DEPTH]
        rows = sorted({*near[number].tolist(), *(row for row, _ in first)})
        stored = stored_cosines(segments, queries[number], rows)
        yield candidates_from(
            [(ids[row], cosine) for row, cosine in zip(near[number].tolist(), cosines[number].tolist(), strict=True)],
            [(ids[row], score) for row, score in first],
            {ids[row]: stored[row] for row in rows},
            {ids[row]: score for row, score in words},
            greatest_bm25(index._words, text),
        )


def ndcg(method: Method, relevant: Relevant, candidates: Mapping[str, Candidates]) -> list[float]:
    """Return nDCG@10 of each judged query. The order counts, also where scores tie."""
    ranked = {
        query: {d: -float(rank) for rank, d in enumerate(first_ten(method(candidates[query]), candidates[query]))}
        for query in relevant
    }
    return query_measures(relevant, ranked)["ndcg_at_10"]


CandidatesOf: TypeAlias = dict[str, dict[str, Candidates]]
"""Set -> query -> candidates."""


def candidates_by(model: str, collections: Sequence[FusionSet], threads: int) -> CandidatesOf:
    """Return the candidates of all judged queries by a model."""
    candidates: CandidatesOf = {}
    for collection in collections:
        judged = [*collection.tuning, *collection.test]
        texts = [collection.queries[query] for query in judged]
        index = opened(collection, model, threads)
        candidates[collection.name] = dict(zip(judged, candidates_of(index, texts), strict=True))
        print(
            f"{model}: {collection.name}, {len(collection.documents):,} rows, {len(judged):,} queries", file=sys.stderr
        )
    return candidates


TunedOf: TypeAlias = dict[str, list[float]]
"""Set -> nDCG@10 of each tuning query."""


def tuned(method: Method, collections: Sequence[FusionSet], candidates: CandidatesOf) -> TunedOf:
    """Return a method's nDCG@10 of the tuning queries of each set."""
    return {
        c.name: [gain(method, candidates[c.name][query], relevant) for query, relevant in c.tuning.items()]
        for c in collections
    }


def gain(method: Method, candidates: Candidates, relevant: Mapping[str, int]) -> float:
    """Return nDCG@10 as trec_eval has it, which is slower for many settings."""
    grades = [max(relevant.get(document, 0), 0) for document in first_ten(method(candidates), candidates)]
    best = sorted((grade for grade in relevant.values() if grade > 0), reverse=True)[:10]
    made, ideal = (sum(grade * DISCOUNTS[rank] for rank, grade in enumerate(of) if grade) for of in (grades, best))
    return made / ideal if ideal else 0.0


def is_nowhere_worse(values: Mapping[str, TunedOf], meaning: Mapping[str, TunedOf]) -> bool:
    """Return whether the 95 % interval of the difference to meaning alone reaches 0 or more, for each model and set."""
    for model, of_sets in values.items():
        for name, of_queries in of_sets.items():
            pair = {"method": of_queries, "meaning": meaning[model][name]}
            _, (difference,) = compare(pair, resamples=TUNING_RESAMPLES, seed=SEED)
            if difference.interval[1] < 0:
                return False
    return True


def choose(
    collections: Sequence[FusionSet], candidates: Mapping[str, CandidatesOf]
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """Return each family's chosen setting, and the mean nDCG@10 of all its settings on the tuning queries."""
    meaning = {model: tuned(by_meaning, collections, of_model) for model, of_model in candidates.items()}
    settings, grid = {}, {}
    for family, methods in families().items():
        values = {
            setting: {model: tuned(method, collections, of_model) for model, of_model in candidates.items()}
            for setting, method in methods.items()
        }
        grid[family] = {setting: mean_of(of_models) for setting, of_models in values.items()}
        best_first = sorted(values, key=lambda setting: -grid[family][setting])
        fitting = (setting for setting in best_first if is_nowhere_worse(values[setting], meaning))
        settings[family] = next(fitting, best_first[0])
        print(f"{family}: {settings[family]}", file=sys.stderr)
    return settings, grid


def mean_of(of_models: Mapping[str, TunedOf]) -> float:
    """Return the mean over models and sets."""
    return float(np.mean([np.mean(of_queries) for of_sets in of_models.values() for of_queries in of_sets.values()]))


def measured(
    collections: Sequence[FusionSet], candidates: CandidatesOf, methods: Mapping[str, Method]
) -> list[dict[str, Any]]:
    """Return for each set the nDCG@10 of the test queries by each method, with intervals and comparisons."""
    sets = []
    for collection in collections:
        values = {name: ndcg(method, collection.test, candidates[collection.name]) for name, method in methods.items()}
        intervals, comparisons = compare(values, resamples=RESAMPLES, seed=SEED)
        sets.append(
            {
                "set": collection.name,
                "rows": len(collection.documents),
                "tuning_queries": len(collection.tuning),
                "queries": len(collection.test),
                "ndcg_at_10": {name: float(np.mean(v)) for name, v in values.items()},
                "interval": intervals,
                "comparisons": [vars(c) for c in comparisons if c.first in ("meaning", "words", RECIPROCAL)],
            }
        )
    return sets


def measure(data: Path, threads: int) -> dict[str, Any]:
    """Return what each kind of fusion gives with each model: settings chosen on the tuning queries, figures on the others."""
    collections = [make(data) for make in SETS]
    candidates = {model: candidates_by(model, collections, threads) for model in MODELS}
    settings, grid = choose(collections, candidates)
    methods: dict[str, Method] = {"meaning": by_meaning, "words": by_words}
    methods |= {family: families()[family][setting] for family, setting in settings.items()}
    return {
        "settings": settings,
        "grid": grid,
        "models": {
            model: {
                "sets": measured(collections, candidates[model], methods),
            }
            for model in MODELS
        },
    }


def tables(result: Json) -> list[Table]:
    """Return for each model nDCG@10 of the held-out queries, by set, and how the shipped fusion differs from both rankings."""
    made = []
    for model, of_model in result["models"].items():
        sets = of_model["sets"]
        rows = []
        for name in sets[0]["ndcg_at_10"]:
            setting = result["settings"].get(name, "")
            values = [100 * of_set["ndcg_at_10"][name] for of_set in sets]
            label = f"{name} ({setting})" if setting else name
            rows.append((label, *(f"{value:.1f}" for value in values), f"{np.mean(values):.1f}"))
        header = (model, *(f"{s['set']} ({s['queries']:,} queries)" for s in sets), "mean")
        note = "The models were trained on no judged pair of these sets, but on other texts of the files that they are made of."
        made.append(
            Table(f"{model}: nDCG@10 x 100 of the held-out queries", header, tuple(rows), (note, harness.START_NOTE))
        )
        made.append(_differences(model, sets))
    return made


def _differences(model: str, sets: Sequence[Json]) -> Table:
    """Return how the shipped fusion differs from each ranking by itself, and from reciprocal ranks."""
    rows = tuple(
        (
            f"{of_set['set']}: to {c['first'].partition(',')[0]}",
            f"{-100 * c['difference']:+.2f}",
            f"[{-100 * c['interval'][1]:+.2f}, {-100 * c['interval'][0]:+.2f}]",
            f"{c['p']:.4f}",
        )
        for of_set in sets
        for c in of_set["comparisons"]
        if c["second"] == SHIPPED and c["first"] in ("meaning", "words", RECIPROCAL)
    )
    note = f"Paired bootstrap over the queries: {RESAMPLES:,} resamples, seed {SEED}; two-sided p."
    return Table(f"{model}: {SHIPPED}", ("set", "difference", "95 %", "p"), rows, (note,))


def main() -> None:
    """Measure, print and save."""
    options = harness.arguments(__doc__ or "")
    data_file(options.data, "captions_multi30k.tsv.gz")
    result = measure(options.data, options.threads)
    for table in tables(result):
        print(table.terminal() + "\n")
    harness.save("fusion", result, options)


if __name__ == "__main__":
    main()
