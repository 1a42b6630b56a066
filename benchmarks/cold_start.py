"""How long a person waits for one vector from a cold process: `sbmini encode` against a sentence-transformers script."""

import sys
from functools import partial
from pathlib import Path

from benchmarks import harness
from sbert_mini.models import resolve
from sbert_mini.runtime.conversion import find

PEER = """
from sentence_transformers import SentenceTransformer
model = SentenceTransformer({path!r}, local_files_only=True)
print(model.encode("one sentence").tolist())
"""


def main() -> None:
    options = harness.arguments(__doc__)
    path = str(resolve("all-MiniLM-L6-v2"))
    find(path)  # converted once, before anything is timed
    sbmini = str(Path(sys.executable).with_name("sbmini"))
    threads = {"OMP_NUM_THREADS": str(options.threads)}
    commands = {
        "sbmini encode": [sbmini, "encode", "one sentence", "--model", path],
        "sentence-transformers": [sys.executable, "-c", PEER.format(path=path)],
        "sbmini --help": [sbmini, "--help"],
    }
    memory: dict[str, list[float]] = {name: [] for name in commands}

    def run(name: str) -> float:
        elapsed_s, peak = harness.process(commands[name], threads)
        memory[name].append(peak)
        return elapsed_s

    for command in commands.values():  # once unmeasured: files in the page cache, bytecode compiled
        harness.process(command, threads)
    seconds = harness.alternate({name: partial(run, name) for name in commands}, options.rounds)
    ours, peer = "sbmini encode", "sentence-transformers"
    result = {
        "rounds": options.rounds,
        "seconds": {name: harness.summary(values) for name, values in seconds.items()},
        "peak_bytes": {name: harness.summary(values) for name, values in memory.items()},
        "times_faster": harness.median_ratio(seconds[peer], seconds[ours]),
        "share_of_memory": harness.median_ratio(memory[ours], memory[peer]),
    }
    for name in commands:
        print(
            f"{name:<24}{result['seconds'][name]['median']:8.2f} s{result['peak_bytes'][name]['median'] / 1e6:8.0f} MB"
        )
    print(f"{result['times_faster']:.1f} times faster, {result['share_of_memory']:.2f} of the memory")
    harness.save("cold_start", result, options)


if __name__ == "__main__":
    main()
