"""sbert-mini: small, fast, offline sentence embeddings.

The names below are loaded when they are first used, so that `import sbert_mini` costs next to nothing and the torch-free
half never imports torch.

| name | what it is | needs |
| --- | --- | --- |
| `Embedder` | texts -> vectors, int8 or fp32, without torch | |
| `Explanation` | why two texts have their cosine: its parts by pairs of words (`Embedder.explain`) | |
| `IndexWriter` | makes an index of texts, and changes it | |
| `Collection` | an index that grows: upsert, get, delete, query | |
| `FolderSync`, `SyncOptions` | makes an index agree with folders of documents | |
| `merge_indexes` | several indexes of one model -> a new one | |
| `migrate_index` | an index -> the same rows with another model | |
| `Hit` | a row that a search returns: its id, score, text and columns | |
| `Record` | a row to index: a text with its id and columns | |
| `SearchIndex` | an index, opened for search: FAISS with the rows that it was made from | |
| `MiniBert`, `BertConfig` | the BERT encoder written from scratch | `train` |
| `load` | a model as a trainable `SentenceTransformer` | `train` |
| `Predictor` | a trained task head: texts or pairs -> labels or scores, without torch | |
| `MultiTaskTrainer`, `FitterConfig` | the multi-task fitter, a `SentenceTransformerTrainer` | `train` |
| `LoraConfig`, `AverageConfig`, `RegularizationConfig` | parts of `FitterConfig` | `train` |
| `Task`, `TaskConfig`, `Examples` | what it is fitted to | `train` |
| `FixedMargin`, `ScheduledMargin`, `HardNegativeMargin` | the margin of a `Task` with the loss `cosine-embedding` | `train` |
| `CosineEmbeddingLoss`, `AdamW`, `pcgrad_weights` | parts of it, for other uses | `train` |
| `MiniBertModule` | MiniBert as sentence-transformers' first module | `train` |
| `SbertMiniError` | the base of every exception raised on purpose | |
| `UsageError` | an invalid argument; `parameter` names it | |
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sbert_mini.version import __version__

_HOMES = {
    "AdamW": "sbert_mini.training.adamw",
    "AverageConfig": "sbert_mini.training.config",
    "BertConfig": "sbert_mini.model.layout",
    "Collection": "sbert_mini.search.collection",
    "CosineEmbeddingLoss": "sbert_mini.training.losses",
    "Embedder": "sbert_mini.runtime.embedder",
    "Examples": "sbert_mini.training.examples",
    "Explanation": "sbert_mini.runtime.explanation",
    "FitterConfig": "sbert_mini.training.config",
    "FolderSync": "sbert_mini.documents.sync",
    "FixedMargin": "sbert_mini.training.losses",
    "HardNegativeMargin": "sbert_mini.training.losses",
    "Hit": "sbert_mini.search.queries",
    "IndexWriter": "sbert_mini.search.writer",
    "LoraConfig": "sbert_mini.training.config",
    "MiniBert": "sbert_mini.encoder.bert",
    "MiniBertModule": "sbert_mini.encoder.module",
    "MultiTaskTrainer": "sbert_mini.training.trainer",
    "Predictor": "sbert_mini.runtime.predictor",
    "Record": "sbert_mini.text.records",
    "RegularizationConfig": "sbert_mini.training.config",
    "SbertMiniError": "sbert_mini.errors",
    "ScheduledMargin": "sbert_mini.training.losses",
    "SearchIndex": "sbert_mini.search.index",
    "SyncOptions": "sbert_mini.documents.sync",
    "Task": "sbert_mini.training.tasks",
    "TaskConfig": "sbert_mini.training.task_config",
    "UsageError": "sbert_mini.errors",
    "load": "sbert_mini.encoder.module",
    "merge_indexes": "sbert_mini.search.joining",
    "migrate_index": "sbert_mini.documents.migration",
    "pcgrad_weights": "sbert_mini.training.surgery",
}

if TYPE_CHECKING:
    from sbert_mini.documents.migration import migrate_index
    from sbert_mini.documents.sync import FolderSync, SyncOptions
    from sbert_mini.encoder.bert import MiniBert
    from sbert_mini.encoder.module import MiniBertModule, load
    from sbert_mini.errors import SbertMiniError, UsageError
    from sbert_mini.model.layout import BertConfig
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.runtime.explanation import Explanation
    from sbert_mini.runtime.predictor import Predictor
    from sbert_mini.search.collection import Collection
    from sbert_mini.search.index import SearchIndex
    from sbert_mini.search.joining import merge_indexes
    from sbert_mini.search.queries import Hit
    from sbert_mini.search.writer import IndexWriter
    from sbert_mini.text.records import Record
    from sbert_mini.training.adamw import AdamW
    from sbert_mini.training.config import AverageConfig, FitterConfig, LoraConfig, RegularizationConfig
    from sbert_mini.training.examples import Examples
    from sbert_mini.training.losses import CosineEmbeddingLoss, FixedMargin, HardNegativeMargin, ScheduledMargin
    from sbert_mini.training.surgery import pcgrad_weights
    from sbert_mini.training.task_config import TaskConfig
    from sbert_mini.training.tasks import Task
    from sbert_mini.training.trainer import MultiTaskTrainer

__all__ = [
    "AdamW",
    "AverageConfig",
    "BertConfig",
    "Collection",
    "CosineEmbeddingLoss",
    "Embedder",
    "Examples",
    "Explanation",
    "FitterConfig",
    "FixedMargin",
    "FolderSync",
    "HardNegativeMargin",
    "Hit",
    "IndexWriter",
    "LoraConfig",
    "MiniBert",
    "MiniBertModule",
    "MultiTaskTrainer",
    "Predictor",
    "Record",
    "RegularizationConfig",
    "SbertMiniError",
    "ScheduledMargin",
    "SearchIndex",
    "SyncOptions",
    "Task",
    "TaskConfig",
    "UsageError",
    "__version__",
    "load",
    "merge_indexes",
    "migrate_index",
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
