"""Folders of documents -> rows of an index, kept in agreement with the files, and places in these files."""
