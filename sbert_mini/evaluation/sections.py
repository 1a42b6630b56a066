"""The parts of a report: headings, words, tables and pictures with captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sbert_mini.evaluation.gain_tables import CONFUSIONS, COST, CURVES, LEARNED, SCORES, SECTIONS, SURGERY, in_words
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.evaluation.tables import TABLES

_PICTURES: Mapping[str, tuple[str, str]] = {
    "training-figures": (
        CURVES,
        "Each task's figure that counts, at each evaluation. A dev line that falls while the training line rises is overfitting: "
        "train for fewer epochs. A line that still rises at the end has not learned all it could.",
    ),
    "training-losses": (
        CURVES,
        "The loss of each task, and how many of its examples a batch held. A loss that falls and stays low is learned; one that "
        "does not move has too low a rate, or contradicting labels.",
    ),
    "training-surgery": (
        SURGERY,
        "Where the share of conflicts is above the line at one half, two tasks mostly pull the encoder in opposite directions. "
        "The weight is what surgery left of a task's gradient.",
    ),
    "training-layers": (
        SURGERY,
        "Left of 0, two tasks disagree in that layer. Blue is agreement, red is conflict. Depth 0 is the embeddings.",
    ),
    "training-resources": (COST, "The rate should be level: a dip is another program on the machine, or long texts."),
    "confusion-": (
        CONFUSIONS,
        "A row is the right label, a column the predicted one. Dark fields off the diagonal are labels that the model takes for "
        "one another.",
    ),
    "histogram-": (
        SCORES,
        "How often each score occurs, by the right label; the start on the left. The further apart the two labels lie, the "
        "better a threshold divides them. What overlaps is not decided by any threshold.",
    ),
    "scores-": (SCORES, "Predicted against right scores. The closer the points lie to a rising line, the better."),
}
"""How a picture's name begins -> the part of the training report that it stands in, and what is to be seen in it."""
_CAPTIONS: Mapping[str, str] = {
    "sts-": "Cosines against human scores: a good model's points rise from left to right in a narrow band.",
    "sts": "Spearman's correlation with human scores, higher is better. Where the lines on two bars overlap, the difference may "
    "be chance.",
    "speed": "Texts a second, higher is better: by texts in a batch, and by the length of the texts. Both axes are logarithmic.",
    "search": "Each point is a kind of index. Up is more of the right hits, right is more queries a second.",
    "pairs": "The time to find the most similar pair grows with the square of the number of sentences for a cross-encoder.",
}


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: its heading.
        words: sentences at its beginning.
        tables: in order.
        pictures: file names with their captions.
    """

    title: str
    words: tuple[str, ...]
    tables: tuple[Table, ...]
    pictures: tuple[tuple[str, str], ...]


def sections(kind: str, title: str, result: Json, pictures: Sequence[str]) -> list[Section]:
    """Return the parts of a result, each with something in it.

    Args:
        kind: one of `tables.TABLES`.
        title: of the result; its one part has it, where it is no training run.
        result: as its JSON holds it.
        pictures: the names of its pictures.
    """
    tables = TABLES[kind](result)
    if kind != "training":
        return [Section(title, (), tuple(tables), tuple((name, _caption(name)) for name in pictures))]
    placed = [(name, *_place(name)) for name in pictures]
    parts = [
        Section(
            heading,
            tuple(in_words(result.get("start_comparison"))) if heading == LEARNED else (),
            tuple(table for table in tables if table.section == heading),
            tuple((name, caption) for name, section, caption in placed if section == heading),
        )
        for heading in SECTIONS
    ]
    return [part for part in parts if part.tables or part.pictures]


def _place(name: str) -> tuple[str, str]:
    return next((place for start, place in _PICTURES.items() if name.startswith(start)), (COST, ""))


def _caption(name: str) -> str:
    return next((text for start, text in _CAPTIONS.items() if name.startswith(start)), "")
