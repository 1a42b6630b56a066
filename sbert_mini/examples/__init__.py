"""Texts that travel with the package, written for this project.

`collection.jsonl`, 240 passages: what `make demo` searches, and what fixes the int8 scales of a converted model.
`pairs.tsv`, 64 pairs of sentences with a score from 0 (unrelated) to 5 (the same): for a smoke run of `sbmini bench sts`.
"""
