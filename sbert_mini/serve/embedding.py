"""The model of a server: texts of requests -> vectors, those of requests that arrive together in one call."""

from collections.abc import Sequence
from dataclasses import dataclass

from sbert_mini.errors import SbertMiniError
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.serve.batching import Batcher
from sbert_mini.serve.problems import ProblemError
from sbert_mini.serve.settings import Settings
from sbert_mini.shapes import FloatArray

TOGETHER = 1024
"""Texts of one call."""


@dataclass(frozen=True)
class Job:
    """The texts of a request.

    Attributes:
        texts: the texts.
        dimensions: components to keep; None for all.
    """

    texts: tuple[str, ...]
    dimensions: int | None = None


@dataclass(frozen=True)
class Embedded:
    """The answer to a job.

    Attributes:
        vectors: of the texts, (texts, dim).
        tokens: that the model read, special tokens included.
        truncated: texts that were longer than it reads.
    """

    vectors: FloatArray
    tokens: int
    truncated: int


class EmbeddingService:
    """A model, and the queue before it.

    Args:
        embedder: the model.
        settings: of the server.
    """

    def __init__(self, embedder: Embedder, settings: Settings) -> None:
        self.embedder, self._settings = embedder, settings
        self.queue: Batcher[Job, Embedded] = Batcher(
            self._compute,
            size=lambda job: len(job.texts),
            together=TOGETHER,
            waiting=settings.limits.waiting,
            name="sbmini-embed",
        )

    @property
    def name(self) -> str:
        """The model's name, as requests may give it."""
        return self.embedder.model_name

    async def embed(self, texts: Sequence[str], dimensions: int | None) -> Embedded:
        """Return the vectors of a request's texts.

        Raises:
            ProblemError: there are more tokens than a request may have, a text is too long and may not be cut, or too much waits.
        """
        return await self.queue.submit(Job(tuple(texts), dimensions))

    def _compute(self, jobs: Sequence[Job]) -> list[Embedded | BaseException]:
        results: list[Embedded | BaseException | None] = [None] * len(jobs)
        sizes: dict[int, tuple[int, int]] = {}
        by_dimension: dict[int | None, list[int]] = {}
        for number, job in enumerate(jobs):
            try:
                sizes[number] = self._size(job)
            except SbertMiniError as error:
                results[number] = error
            else:
                by_dimension.setdefault(job.dimensions, []).append(number)
        for dimensions, numbers in by_dimension.items():
            texts = [text for number in numbers for text in jobs[number].texts]
            try:
                vectors = self.embedder.encode(
                    texts,
                    prompt=self.embedder.document_prompt(),
                    truncate_dim=dimensions,
                    truncation="chunk" if self._settings.truncation == "chunk" else "warn",
                )
            except SbertMiniError as error:
                for number in numbers:
                    results[number] = error
                continue
            first = 0
            for number in numbers:
                count = len(jobs[number].texts)
                results[number] = Embedded(vectors[first : first + count], *sizes[number])
                first += count
        return [result for result in results if result is not None]

    def _size(self, job: Job) -> tuple[int, int]:
        """Return a job's tokens and the texts of it that are too long, which are allowed."""
        prompt = self.embedder.document_prompt()
        tokens = self.embedder.tokenizer.encode([prompt + text for text in job.texts])
        count, truncated = int(tokens.lengths.sum()), int(tokens.truncated.sum())
        if count > self._settings.limits.tokens:
            most = self._settings.limits.tokens
            raise ProblemError(413, f"a request may have {most} tokens; found {count}: send fewer texts", "input")
        if truncated and self._settings.truncation == "error":
            most = self.embedder.tokenizer.max_seq_length
            position = int(tokens.truncated.argmax())
            raise ProblemError(400, f"input[{position}] is longer than the {most} tokens that the model reads", "input")
        return count, truncated
