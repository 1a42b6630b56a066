"""Jobs that wait are computed together, in order, and no more wait than may."""

import asyncio
import threading

import pytest

from sbert_mini.serve.batching import Batcher
from sbert_mini.serve.problems import ProblemError


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario(), 20))


def batcher(calls, gate, **options):
    def compute(jobs):
        calls.append(list(jobs))
        gate.wait(10)
        if "broken" in jobs:
            raise RuntimeError("broken")
        return [ValueError(job) if job.startswith("bad") else job.upper() for job in jobs]

    return Batcher(compute, size=len, **{"together": 6, "waiting": 9, "name": "test", **options})


def test_what_waits_is_computed_together_up_to_a_weight():
    calls, gate = [], threading.Event()

    async def scenario():
        queue = batcher(calls, gate)
        waiting = [asyncio.ensure_future(queue.submit(job)) for job in ("a", "bb", "ccc", "d", "ee")]
        await asyncio.sleep(0.05)
        gate.set()
        assert await asyncio.gather(*waiting) == ["A", "BB", "CCC", "D", "EE"]
        assert queue.waiting == 0
        queue.close()

    run(scenario)
    assert calls == [["a"], ["bb", "ccc", "d"], ["ee"]]


def test_more_than_may_wait_is_refused_and_a_heavy_job_alone_is_not():
    calls, gate = [], threading.Event()

    async def scenario():
        queue = batcher(calls, gate)
        heavy = asyncio.ensure_future(queue.submit("x" * 50))
        await asyncio.sleep(0.05)
        with pytest.raises(ProblemError, match="too many texts") as caught:
            await queue.submit("a")
        assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "1"})
        gate.set()
        assert await heavy == "X" * 50
        assert await queue.submit("a") == "A"

    run(scenario)


def test_a_job_that_fails_fails_alone_and_a_call_that_fails_fails_whole():
    calls, gate = [], threading.Event()
    gate.set()

    async def scenario():
        queue = batcher(calls, gate)
        results = await asyncio.gather(*map(queue.submit, ("a", "bad", "good")), return_exceptions=True)
        assert [str(result) for result in results] == ["A", "bad", "GOOD"]
        assert isinstance(results[1], ValueError)
        with pytest.raises(RuntimeError, match="broken"):
            await queue.submit("broken")
        assert await queue.submit("after") == "AFTER"

    run(scenario)


def test_a_client_that_is_gone_harms_nobody():
    calls, gate = [], threading.Event()

    async def scenario():
        queue = batcher(calls, gate)
        gone, there = (asyncio.ensure_future(queue.submit(job)) for job in ("a", "b"))
        await asyncio.sleep(0.05)
        gone.cancel()
        gate.set()
        assert await there == "B"
        assert queue.waiting == 0

    run(scenario)
