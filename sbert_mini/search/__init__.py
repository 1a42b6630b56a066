"""Vectors -> hits, durably: the index directory and the FAISS index over it. No torch."""
