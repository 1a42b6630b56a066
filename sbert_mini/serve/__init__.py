"""Vectors and search over HTTP, and a page in the browser."""
