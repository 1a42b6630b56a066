"""What is shown of a hit to a person: the sentences of its passage that are closest to the query, and the query's words."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sbert_mini.runtime.embedder import Embedder
from sbert_mini.search.analyzer import function_terms, query_terms, terms_of
from sbert_mini.search.queries import Hit
from sbert_mini.shapes import FloatArray
from sbert_mini.text.passages import Span
from sbert_mini.text.sentences import sentence_spans

SENTENCES = 3
"""Sentences of an excerpt."""
_COMPARED = 100
"""The most sentences of a passage that are compared with the query."""
_COMPARED_CHARACTERS = 1000
"""The beginning of a sentence that is compared."""
_COMPOUND = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_HEADING = re.compile(r"#{1,6}[ \t]")
_PART = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Excerpt:
    """What is shown of a hit.

    Attributes:
        sentences: the closest ones, in their order; where they start and end in the hit's text, in characters.
        closest: the closest of them.
    """

    sentences: tuple[Span, ...]
    closest: Span


def excerpts(
    hits: Sequence[Hit],
    query: FloatArray,
    embedder: Embedder,
    words: "QueryWords | None" = None,
    most: int = SENTENCES,
) -> list[Excerpt]:
    """Return the excerpt of each hit. The sentences of all are encoded together.

    Of a passage of more than 100 sentences the first 100 are compared. In source code a line is a sentence.

    Args:
        hits: of one query.
        query: its vector.
        embedder: the model that the query was encoded with.
        words: of the query; given, sentences with more of them are closer, whatever their cosine.
        most: sentences of an excerpt.

    Shapes:
        query: (dim,).
    """
    spans_of = [_sentences(hit) for hit in hits]
    texts = [_plain(hit.text[start:end]) for hit, spans in zip(hits, spans_of, strict=True) for start, end in spans]
    prompt = embedder.document_prompt()
    blocks = list(embedder.encode_stream(texts, truncation="chunk", warn_of_unknown=False, prompt=prompt))
    cosines = np.concatenate(blocks) @ query if blocks else np.empty(0, np.float32)
    if words is not None:
        cosines = cosines + np.array([2 * words.count(text) for text in texts], np.float32)
    made, first = [], 0
    for spans in spans_of:
        own = cosines[first : first + len(spans)]
        first += len(spans)
        best = np.argsort(-own, kind="stable")[:most]
        made.append(Excerpt(tuple(spans[i] for i in sorted(best.tolist())), spans[int(best[0])]))
    return made


def _sentences(hit: Hit) -> list[Span]:
    """Return the sentences of a hit's passage, in characters of its text: at least one. Headings are none beside others."""
    by_line = hit.columns.get("file_format") == "code"
    spans = sentence_spans(hit.passage, by_line=by_line)[:_COMPARED]
    if not by_line:
        spans = [(start, end) for start, end in spans if not _HEADING.match(hit.passage, start)] or spans
    return [(hit.start + start, hit.start + end) for start, end in spans] or [(hit.start, hit.end)]


def _plain(text: str) -> str:
    return " ".join(text[:_COMPARED_CHARACTERS].split()).encode("utf-8", "replace").decode()


class QueryWords:
    """The words of a query, found in a text as the index of words finds them: by their stems, without diacritics.

    Function words of English, such as "the", are not looked for, unless the query has no other word.

    Args:
        query: the query; "" for none.
    """

    def __init__(self, query: str) -> None:
        terms = set(query_terms(query))
        self._terms = (terms - function_terms()) or terms
        self._in_pairs = {character for term in terms if len(term) == 2 for character in term}

    def count(self, text: str) -> int:
        """Return how many different words of the query a text holds."""
        return len(self._terms.intersection(terms_of(text)))

    def spans(self, text: str) -> list[Span]:
        """Return where the query's words stand in a text, ascending, in characters."""
        return list(self._found(text)) if self._terms else []

    def _found(self, text: str) -> Iterator[Span]:
        for match in _COMPOUND.finditer(text):
            terms = terms_of(match[0])
            is_whole = len(terms) == 1 or ("-" in match[0] and any(c.isdigit() for c in match[0]))
            if is_whole and terms and terms[-1] in self._terms:
                yield match.span()
            elif len(terms) > 1:
                yield from self._in_part(text, match.span())

    def _in_part(self, text: str, span: Span) -> Iterator[Span]:
        """Yield the words that stand in a compound, or among characters without spaces between them."""
        for match in _PART.finditer(text, *span):
            terms = terms_of(match[0])
            if len(terms) == 1:
                if terms[0] in self._terms:
                    yield match.span()
                continue
            marked = [False] * len(match[0])
            for i in range(len(match[0])):
                if match[0][i : i + 2] in self._terms and i + 1 < len(match[0]):
                    marked[i] = marked[i + 1] = True
                elif match[0][i] in self._terms and match[0][i] not in self._in_pairs:
                    marked[i] = True
            yield from _runs(marked, match.start())


def _runs(marked: Iterable[bool], first: int) -> Iterator[Span]:
    """Yield where the runs of what is marked start and end."""
    start = -1
    end = first
    for is_marked in marked:
        if is_marked and start < 0:
            start = end
        elif not is_marked and start >= 0:
            yield start, end
            start = -1
        end += 1
    if start >= 0:
        yield start, end
