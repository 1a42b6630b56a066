"""`python -m sbert_mini` is `sbmini`."""

from sbert_mini.cli.main import main

if __name__ == "__main__":
    main()
