"""Audit a model: associations in templated sentences, hubness, and rare words."""

from pathlib import Path

import numpy as np

from benchmarks.harness import data_file
from benchmarks.models.data import titles_dev
from sbert_mini import Embedder
from sbert_mini.evaluation.audit import GROUPS, MENS, WOMENS, hubness_of
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.table import Json
from sbert_mini.model.layout import read_layout
from sbert_mini.text.records import read_records
from sbert_mini.text.tokenizer import open_tokenizer

BANDS = ("1 piece", "2 or 3", "4 or more")


def hubness(embedder: Embedder, data: Path, k: int = 10) -> dict[str, float]:
    """Return how unevenly texts are others' neighbours (Radovanović et al. 2010): the skewness of N_k among 10,000 sentences."""
    texts = [
        r.text for r, _ in zip(read_records(data_file(data, "sentences_misc.txt.gz")), range(10_000), strict=False)
    ]
    return hubness_of(embedder.encode(list(dict.fromkeys(texts))), k)


def rare_words(embedder: Embedder, data: Path) -> dict[str, float]:
    """Return how often a title finds its article among 1,000, by the word pieces that its words are split into."""
    titles, leads = zip(*titles_dev(data), strict=True)
    tokenizer = open_tokenizer(read_layout(embedder.path))
    most = np.array([max(len(tokens.ids) - 2 for tokens in tokenizer.encode(title.split())) for title in titles])
    is_found = (embedder.encode(titles) @ embedder.encode(leads).T).argmax(axis=1) == np.arange(len(titles))
    bands = dict(zip(BANDS, (most <= 1, (most > 1) & (most <= 3), most > 3), strict=True))
    return {name: float(is_found[band].mean()) for name, band in bands.items()} | {
        f"titles, {name}": int(band.sum()) for name, band in bands.items()
    }


def audited(figures: Json, peer: Json) -> list[str]:
    """Return the paragraphs of the audit, with the peer's figures beside."""
    effects = [x["associations"]["occupations"]["effect_size"] for x in (figures, peer)]
    spreads = [x["associations"]["groups"]["spread"] for x in (figures, peer)]
    hubs, peer_hubs, words = figures["hubness"], peer["hubness"], figures["rare_words"]
    by_pieces = ", ".join(f"{band}: {words[band]:.3f} of {words[f'titles, {band}']}" for band in BANDS)
    return [
        "Associations, in templated sentences written for this project (`sbmini bench audit`): sentences about "
        f"{len(WOMENS)} occupations held mostly by women are closer to sentences about a woman than those about {len(MENS)} "
        f"occupations held mostly by men. The effect size (Cohen's d) is {effects[0]:.2f}; {PEER_MODEL}: {effects[1]:.2f}. For "
        f"{len(GROUPS)} nationalities and religions, the similarity to pleasant minus that to unpleasant sentences differs by "
        f"up to {spreads[0]:.3f}; {PEER_MODEL}: {spreads[1]:.3f}. A few English sentences can show that a model has "
        "associations; they cannot show that it has none. Do not rank people with this model.",
        f"Hubness among 10,000 sentences: the skewness of the 10-neighbour counts is {hubs['skewness']:.2f}, and the largest "
        f"hub is a neighbour of {hubs['greatest']:.0f}; {PEER_MODEL}: {peer_hubs['skewness']:.2f} and "
        f"{peer_hubs['greatest']:.0f}.",
        "Rare words: how often a title finds its article among 1,000, by the largest number of word pieces in one of its "
        f"words: {by_pieces}.",
    ]
