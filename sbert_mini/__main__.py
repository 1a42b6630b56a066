"""`python -m sbert_mini` is `sbmini`."""

from sbert_mini.cli.main import main  # type: ignore[import-not-found]  # setuptools maps it from cli/

if __name__ == "__main__":
    main()
