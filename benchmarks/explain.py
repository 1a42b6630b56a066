"""How far a word's share of a cosine agrees with what its removal changes, on pairs of STS-B's dev set, and what shares cost.

python -m benchmarks.explain --data ../shared/data
"""

import csv
import gzip
import io
import time

import numpy as np
from scipy.stats import spearmanr

from benchmarks.harness import data_file, parser, save
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.explanation import Explanation


def words(explanation: Explanation) -> list[list[tuple[float, float]]]:
    """Return the share and the effect of removal of each word, text by text, without punctuation marks."""
    return [
        [(word.share, word.removal) for word in side if word.removal is not None and any(map(str.isalnum, word.text))]
        for side in (explanation.words_a, explanation.words_b)
    ]


def beyond_encoding_ms(embedder: Embedder, pairs: list[tuple[str, str]]) -> float:
    """Return the median time of `explain` without removals, less that of encoding the two texts one by one, in milliseconds."""
    taken = []
    for a, b in pairs:
        started = time.thread_time()
        embedder.explain(a, b, removal=False)
        explained = time.thread_time()
        for text in (a, b):
            embedder.encode_tokens([text])
        taken.append(explained - started - (time.thread_time() - explained))
    return 1000 * float(np.median(taken))


def main() -> None:
    options_parser = parser(__doc__, threads=1, rounds=1)
    options_parser.add_argument("--pairs", type=int, default=300, help="evenly spaced pairs of the set")
    options = options_parser.parse_args()
    with gzip.open(data_file(options.data, "stsb_dev.tsv.gz")) as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file, "utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = rows[:: max(len(rows) // options.pairs, 1)][: options.pairs]
    pairs = [(row["sentence1"], row["sentence2"]) for row in rows]
    embedder = Embedder("sbert-mini", threads=options.threads)
    explanations = [embedder.explain(a, b) for a, b in pairs]
    vectors = [embedder.encode(list(side)) for side in zip(*pairs, strict=True)]
    cosines = np.array([explanation.cosine for explanation in explanations])
    texts = [text for explanation in explanations for text in words(explanation) if len(text) >= 4]
    correlations = [spearmanr(*zip(*text, strict=True)).statistic for text in texts]
    top = [np.argmax([share for share, _ in text]) == np.argmax([left for _, left in text]) for text in texts]
    result = {
        "pairs": len(pairs),
        "texts": len(texts),
        "spearman_mean": float(np.nanmean(correlations)),
        "spearman_quartiles": np.nanquantile(correlations, [0.25, 0.5, 0.75]).tolist(),
        "same_first_word": float(np.mean(top)),
        "special_share_of_cosine": float(
            np.median([e.special_share / e.cosine for e in explanations if e.cosine > 0.1])
        ),
        "negative_pairs": float(np.mean(np.concatenate([e.shares.ravel() for e in explanations]) < 0)),
        "greatest_difference_of_sum": float(np.abs([e.shares.sum() - e.cosine for e in explanations]).max()),
        "greatest_difference_from_similarity": float(np.abs(embedder.similarity_pairwise(*vectors) - cosines).max()),
        "ms_beyond_encoding": beyond_encoding_ms(embedder, pairs[:100]),
    }
    print(result)
    if not options.no_save:
        save("explain", result, options)


if __name__ == "__main__":
    main()
