"""Distillation: a student whose sentence vectors are a teacher's, or stand to each other as a teacher's do."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from sbert_mini.model.choices import Graph
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.job import EncodeJob, EncodeSettings
from sbert_mini.shapes import FloatArray
from sbert_mini.text.records import Record


class DistillationLoss(nn.Module):
    """How far a batch's vectors `s` are from a teacher's `t`, both scaled to length 1, for n texts:

        vector_weight · mean_i (1 - s_i · t_i) + similarity_weight · mean_ij (s_i · s_j - t_i · t_j)²

    The first term is half the mean squared distance of unit vectors; the second one compares the tables of similarities, and
    does not mind how many components a vector has.

    Args:
        vector_weight: of the first term; 0 for a teacher whose vectors have another number of components.
        similarity_weight: of the second one.

    Source: Reimers and Gurevych 2020 (arXiv 2004.09813), for the vectors; Tung and Mori 2019 (arXiv 1907.09682), the
    similarity-preserving loss, for the similarities (there of activations, and scaled by rows).
    """

    def __init__(self, vector_weight: float = 1.0, similarity_weight: float = 1.0) -> None:
        super().__init__()
        self.vector_weight, self.similarity_weight = vector_weight, similarity_weight

    def compute_loss_from_embeddings(self, vectors: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Return the loss. A student's vectors that were cut (`dimensions`) are compared by their similarities alone.

        Shapes: vectors: one tensor, (batch, dim); targets, the teacher's vectors: (batch, teacher dim); the result ().
        """
        student = functional.normalize(vectors[0].float(), dim=-1)
        teacher = functional.normalize(targets.float(), dim=-1)
        difference = student @ student.T - teacher @ teacher.T
        loss = self.similarity_weight * difference.square().mean()
        if self.vector_weight and student.shape == teacher.shape:
            loss = loss + self.vector_weight * (1 - (student * teacher).sum(dim=-1)).mean()
        return loss


def teacher_vectors(
    texts: Sequence[str],
    teacher: str | Path,
    folder: Path,
    *,
    graph: Graph = "fp32",
    threads: int | None = None,
    offline: bool = False,
    trust_tokenizer: bool = False,
    on_progress: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> FloatArray:
    """Return a teacher's vectors of texts; computed once, and kept in `folder`.

    An interrupted computation goes on where it stood.

    Args:
        texts: the texts.
        teacher: a model directory, a built-in name or a hub id.
        folder: where they are kept; it is made.
        graph: what computes them.
        threads: that compute.
        offline: open no socket.
        trust_tokenizer: see `Embedder`.
        on_progress: called with a line of text for each stage.

    Shapes: the result (texts, teacher dim), float32, memory-mapped.

    Raises:
        ModelNotFoundError: the name leads nowhere.
    """
    embedder = Embedder(teacher, graph=graph, threads=threads, offline=offline, trust_tokenizer=trust_tokenizer)
    digest = hashlib.sha256(
        json.dumps([embedder.fingerprint, graph, list(texts)]).encode("utf-8", "surrogatepass")
    ).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{digest[:32]}.npy"
    if not file.is_file():
        on_progress(f"the teacher {teacher} encodes {len(texts):,} texts -> {file}")
        job = EncodeJob(file, embedder, EncodeSettings(), resume=True)
        job.run(Record(text=text, line=number) for number, text in enumerate(texts, start=1))
    vectors: FloatArray = np.load(file, mmap_mode="r", allow_pickle=False)
    return vectors
