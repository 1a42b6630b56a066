"""Jobs of requests that arrive together are computed together, by one thread, in the order in which they came."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from sbert_mini.serve.problems import ProblemError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


@dataclass
class _Waiting(Generic[JobT, ResultT]):
    job: JobT
    size: int
    answer: "asyncio.Future[ResultT]"


class Batcher(Generic[JobT, ResultT]):
    """Takes jobs one by one and computes those that wait in one call. All but `compute` runs on the event loop's thread.

    Args:
        compute: jobs -> a result, or an exception, for each. It runs on a thread of its own, one call at a time.
        size: what a job weighs.
        together: the weight of one call; a heavier job is computed alone.
        waiting: the weight that may wait; a job beyond it is refused, unless nothing waits.
        name: of the thread.

    Attributes:
        pool: the thread, for other calls that must not run beside `compute`.
        waiting: the weight that waits or is computed.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[JobT]], Sequence["ResultT | BaseException"]],
        *,
        size: Callable[[JobT], int],
        together: int,
        waiting: int,
        name: str,
    ) -> None:
        self._compute, self._size, self._together, self._most = compute, size, together, waiting
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._queue: deque[_Waiting[JobT, ResultT]] = deque()
        self._busy = False
        self.waiting = 0

    async def submit(self, job: JobT) -> ResultT:
        """Return the result of a job.

        Raises:
            ProblemError: too much waits already (429).
        """
        size = self._size(job)
        if self.waiting and self.waiting + size > self._most:
            raise ProblemError(429, "too many texts are waiting: try again soon", headers={"Retry-After": "1"})
        entry: _Waiting[JobT, ResultT] = _Waiting(job, size, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self.waiting += size
        self._start()
        return await entry.answer

    def close(self) -> None:
        """End the thread, after the call that it is in."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        """Compute what waits, unless a call is under way."""
        if self._busy or not self._queue:
            return
        taken = [self._queue.popleft()]
        weight = taken[0].size
        while self._queue and weight + self._queue[0].size <= self._together:
            weight += self._queue[0].size
            taken.append(self._queue.popleft())
        self._busy = True
        call = asyncio.get_running_loop().run_in_executor(self.pool, self._compute, [entry.job for entry in taken])
        call.add_done_callback(lambda done: self._finish(taken, weight, done))

    def _finish(
        self,
        taken: Sequence[_Waiting[JobT, ResultT]],
        weight: int,
        done: "asyncio.Future[Sequence[ResultT | BaseException]]",
    ) -> None:
        self._busy = False
        self.waiting -= weight
        error = None if done.cancelled() else done.exception()
        results = [error or asyncio.CancelledError()] * len(taken) if done.cancelled() or error else done.result()
        for entry, result in zip(taken, results, strict=True):
            if entry.answer.done():  # its client is gone
                continue
            if isinstance(result, BaseException):
                entry.answer.set_exception(result)
            else:
                entry.answer.set_result(result)
        self._start()
