"""What a model is worth: anything with `encode(texts) -> array` -> records, and tables, figures and pages made of them.

scipy, pytrec_eval and matplotlib come with the extra `bench`; torch and sentence-transformers are imported only where a
peer is run.
"""
