"""FAISS and its number of threads, also in a process that was forked.

After a fork the child has no copy of the threads that OpenMP keeps, and a computation that waits for them never ends. So a child
of a process that had imported FAISS computes with one thread.
"""

import sys
from typing import Any

from sbert_mini.files import system

_forked = False


def _after_fork() -> None:
    global _forked  # noqa: PLW0603
    _forked = _forked or "faiss" in sys.modules


system.after_fork(_after_fork)


def faiss_with(threads: int | None = None) -> Any:
    """Return the module `faiss`, which computes with so many threads in this thread from now on.

    Args:
        threads: how many; None for what it is. In a child of a process that had imported FAISS it is always one.
    """
    import faiss

    if _forked:
        threads = 1
    if threads is not None:
        faiss.omp_set_num_threads(threads)
    return faiss
