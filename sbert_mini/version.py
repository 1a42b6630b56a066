"""The version of this distribution; pyproject.toml has the same."""

__version__ = "0.1.0"
