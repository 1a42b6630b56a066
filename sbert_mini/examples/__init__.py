"""Texts and recipes in the package; the texts were written for this project.

`collection.jsonl` has 240 passages. `make demo` searches them, and they calibrate the int8 scales of a converted model.
`pairs.tsv` has 64 pairs of sentences with a score from 0 (unrelated) to 5 (the same), for a smoke run of `sbmini bench sts`.
`recipes/` has the built-in recipes of `sbmini train`.
"""
