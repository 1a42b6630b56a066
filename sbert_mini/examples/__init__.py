"""Texts that travel with the package: `collection.jsonl`, 240 passages written for this project.

They are what `make demo` searches, and what fixes the int8 scales of a converted model.
"""
