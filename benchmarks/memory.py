"""Peak memory of `sbmini encode FILE -o vectors.npy` for 20,000 and for 200,000 sentences of sentences_wikipedia_1."""

import gzip
import itertools
import sys
import tempfile
from pathlib import Path

from benchmarks import harness
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.measure import process
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.evaluation.texts import SENTENCES

SIZES = (20_000, 200_000)


def tables(result: Json) -> list[Table]:
    """Return the table of peak memory."""
    rows = tuple(
        (f"{int(size):,} Wikipedia sentences", f"{entry['peak_bytes'] / 1e6:.0f} MB")
        for size, entry in result["sentences"].items()
    )
    return [Table("Memory", ("`sbmini encode -i sentences.txt -o vectors.npy`", "peak memory"), rows)]


def main() -> None:
    options = harness.arguments(__doc__, rounds=1)
    source = harness.data_file(options.data, SENTENCES)
    sbmini = str(Path(sys.executable).with_name("sbmini"))
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            file, vectors = Path(folder) / f"{size}.txt", Path(folder) / f"{size}.npy"
            with gzip.open(source, "rt", encoding="utf-8") as lines, file.open("w", encoding="utf-8") as stream:
                stream.writelines(itertools.islice(lines, size))
            command = [sbmini, "encode", "-i", str(file), "-o", str(vectors), "-m", PEER_MODEL, "--quiet"]
            elapsed_s, peak = process([*command, "--threads", str(options.threads)])
            sizes[str(size)] = {"peak_bytes": peak, "seconds": elapsed_s, "file_bytes": vectors.stat().st_size}
            vectors.unlink()
            print(f"{size:>9,} sentences{peak / 1e6:8.0f} MB peak{elapsed_s:8.0f} s{size / elapsed_s:8.0f} sentences/s")
    small, large = (sizes[str(size)]["peak_bytes"] for size in SIZES)
    print(f"peak of {SIZES[1]:,} against {SIZES[0]:,}: {large / small:.2f}")
    harness.save("memory", {"sentences": sizes, "peak_ratio": large / small}, options)


if __name__ == "__main__":
    main()
