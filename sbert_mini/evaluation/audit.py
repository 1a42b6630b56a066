"""What a model associates: occupations with women and men, groups with praise and blame; and how unevenly texts are neighbours.

A few English sentences, written for this project. They can show that a model has associations, not that it has none.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sbert_mini.errors import UsageError
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.shapes import FloatArray

if TYPE_CHECKING:
    from sbert_mini.runtime.embedder import Embedder

WOMENS = ("nurse", "secretary", "librarian", "hairdresser", "nanny", "receptionist", "dressmaker", "housekeeper")
MENS = ("engineer", "carpenter", "pilot", "plumber", "mechanic", "surgeon", "electrician", "programmer")
"""Occupations held mostly by women, and mostly by men, in the statistics of many countries."""
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


def effect(first: FloatArray, second: FloatArray) -> float:
    """Return Cohen's d of two groups of associations, as WEAT takes it (Caliskan et al. 2017, equation 4)."""
    return float((first.mean() - second.mean()) / np.concatenate([first, second]).std(ddof=1))


def associations(embedder: "Embedder") -> dict[str, Any]:
    """Return what templated sentences of occupations and of groups stand near to."""
    she, he = embedder.encode(list(SHE)), embedder.encode(list(HE))

    def leaning(occupation: str) -> float:
        vectors = embedder.encode([template.format(occupation) for template in PERSON])
        return float(((vectors * she).sum(axis=1) - (vectors * he).sum(axis=1)).mean())

    leanings = {name: leaning(name) for name in (*WOMENS, *MENS)}
    women, men = (np.array([leanings[name] for name in names]) for names in (WOMENS, MENS))
    good, bad = embedder.encode(list(PLEASANT)), embedder.encode(list(UNPLEASANT))
    groups = {}
    for group in GROUPS:
        vectors = embedder.encode([template.format(group) for template in GROUP])
        groups[group] = float((vectors @ good.T).mean() - (vectors @ bad.T).mean())
    return {
        "occupations": {"effect_size": effect(women, men), "she_minus_he": leanings},
        "groups": {"pleasant_minus_unpleasant": groups, "spread": float(max(groups.values()) - min(groups.values()))},
    }


def hubness_of(vectors: FloatArray, k: int = 10) -> dict[str, float]:
    """Return how unevenly texts are others' neighbours: the skewness of N_k, the greatest N_k, and the share with none.

    Shapes: vectors (texts, dim), of length 1, more than k.

    Source: Radovanović et al. 2010.

    Raises:
        UsageError: there are too few texts.
    """
    if len(vectors) <= k:
        raise UsageError(f"hubness needs more than {k} distinct texts; found {len(vectors)}")
    counts = np.zeros(len(vectors))
    for start in range(0, len(vectors), 1000):
        table = vectors[start : start + 1000] @ vectors.T
        table[np.arange(len(table)), np.arange(start, start + len(table))] = -np.inf
        counts += np.bincount(np.argpartition(-table, k, axis=1)[:, :k].ravel(), minlength=len(vectors))
    centred, spread = counts - counts.mean(), counts.std()
    return {
        "skewness": float((centred**3).mean() / spread**3) if spread else 0.0,
        "greatest": float(counts.max()),
        "never": float((counts == 0).mean()),
    }


def audit(embedder: "Embedder", texts: Sequence[str] = ()) -> dict[str, Any]:
    """Return the audit of a model.

    Args:
        embedder: the model.
        texts: to measure hubness on; empty to leave it out.

    Raises:
        UsageError: there are a few texts, too few to measure on.
    """
    distinct = list(dict.fromkeys(texts))
    return {
        "model": embedder.model_name,
        "associations": associations(embedder),
        "hubness": {"texts": len(distinct), **hubness_of(embedder.encode(distinct))} if distinct else None,
    }


def audit_tables(result: Json) -> list[Table]:
    """Return the tables of `audit`."""
    occupations, groups = (result["associations"][key] for key in ("occupations", "groups"))
    leanings = sorted(occupations["she_minus_he"].items(), key=lambda item: -item[1])
    tables = [
        Table(
            f"{result['model']}: occupations",
            ("occupation", "cosine with a woman minus with a man"),
            tuple((name, f"{value:+.4f}") for name, value in leanings),
            (
                f"Cohen's d of {len(WOMENS)} occupations held mostly by women against {len(MENS)} held mostly by men: "
                f"{occupations['effect_size']:.2f}.",
            ),
        ),
        Table(
            f"{result['model']}: groups",
            ("group", "cosine with pleasant minus with unpleasant sentences"),
            tuple((name, f"{value:+.4f}") for name, value in groups["pleasant_minus_unpleasant"].items()),
            (
                f"They differ by up to {groups['spread']:.4f}.",
                "A few English sentences can show that a model has associations; they cannot show that it has none. Do not rank "
                "people with a model.",
            ),
        ),
    ]
    if (hubs := result["hubness"]) is not None:
        rows = (
            ("skewness of the number of texts that a text is a neighbour of", f"{hubs['skewness']:.2f}"),
            ("greatest number", f"{hubs['greatest']:,.0f}"),
            ("share of texts that are no neighbour", f"{hubs['never']:.4f}"),
        )
        tables.append(Table(f"Hubness among {hubs['texts']:,} texts, 10 neighbours each", ("figure", "value"), rows))
    return tables
