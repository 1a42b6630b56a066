"""sbert-mini: small, fast, offline sentence embeddings.

The names below are loaded when they are first used, so that `import sbert_mini` costs next to nothing and the torch-free
half never imports torch.

| name | what it is | needs |
| --- | --- | --- |
| `Embedder` | texts -> vectors, int8 or fp32, without torch | |
| `IndexWriter` | makes an index of texts, and changes it | |
| `Hit` | a row that a search returns: its id, score, text and columns | |
| `Record` | a row to index: a text with its id and columns | |
| `SearchIndex` | an index, opened for search: FAISS with the rows that it was made from | |
| `MiniBert`, `BertConfig` | the BERT encoder written from scratch | `train` |
| `load` | a model as a trainable `SentenceTransformer` | `train` |
| `Predictor` | a trained task head: texts or pairs -> labels or scores, without torch | |
| `MultiTaskTrainer`, `FitterConfig` | the multi-task fitter, a `SentenceTransformerTrainer` | `train` |
| `Task`, `TaskConfig`, `Examples` | what it is fitted to | `train` |
| `CosineEmbeddingLoss`, `AdamW`, `pcgrad_weights` | parts of it, for other uses | `train` |
| `MiniBertModule` | MiniBert as sentence-transformers' first module | `train` |
| `SbertMiniError` | the base of every exception raised on purpose | |
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sbert_mini.version import __version__

_HOMES = {
    "AdamW": "sbert_mini.training.adamw",
    "BertConfig": "sbert_mini.model.layout",
    "CosineEmbeddingLoss": "sbert_mini.training.losses",
    "Embedder": "sbert_mini.runtime.embedder",
    "Examples": "sbert_mini.training.examples",
    "FitterConfig": "sbert_mini.training.config",
    "Hit": "sbert_mini.search.queries",
    "IndexWriter": "sbert_mini.search.writer",
    "MiniBert": "sbert_mini.encoder.bert",
    "MiniBertModule": "sbert_mini.encoder.module",
    "MultiTaskTrainer": "sbert_mini.training.trainer",
    "Predictor": "sbert_mini.runtime.predictor",
    "Record": "sbert_mini.text.records",
    "SbertMiniError": "sbert_mini.errors",
    "SearchIndex": "sbert_mini.search.index",
    "Task": "sbert_mini.training.tasks",
    "TaskConfig": "sbert_mini.training.task_config",
    "load": "sbert_mini.encoder.module",
    "pcgrad_weights": "sbert_mini.training.surgery",
}

if TYPE_CHECKING:
    from sbert_mini.encoder.bert import MiniBert
    from sbert_mini.encoder.module import MiniBertModule, load
    from sbert_mini.errors import SbertMiniError
    from sbert_mini.model.layout import BertConfig
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.runtime.predictor import Predictor
    from sbert_mini.search.index import SearchIndex
    from sbert_mini.search.queries import Hit
    from sbert_mini.search.writer import IndexWriter
    from sbert_mini.text.records import Record
    from sbert_mini.training.adamw import AdamW
    from sbert_mini.training.config import FitterConfig
    from sbert_mini.training.examples import Examples
    from sbert_mini.training.losses import CosineEmbeddingLoss
    from sbert_mini.training.surgery import pcgrad_weights
    from sbert_mini.training.task_config import TaskConfig
    from sbert_mini.training.tasks import Task
    from sbert_mini.training.trainer import MultiTaskTrainer

__all__ = [
    "AdamW",
    "BertConfig",
    "CosineEmbeddingLoss",
    "Embedder",
    "Examples",
    "FitterConfig",
    "Hit",
    "IndexWriter",
    "MiniBert",
    "MiniBertModule",
    "MultiTaskTrainer",
    "Predictor",
    "Record",
    "SbertMiniError",
    "SearchIndex",
    "Task",
    "TaskConfig",
    "__version__",
    "load",
    "pcgrad_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sbert_mini' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from sbert_mini.errors import EXTRA_OF, MissingExtraError

        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        raise MissingExtraError(f"sbert_mini.{name}", package, EXTRA_OF[package]) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
