"""A sample of the generated files; all of them: python -m tests.generated.files."""

from generated.files import run


def test_generated_files_are_read_as_peers_read_them_or_refused(tmp_path):
    results = run(400, 7_000, tmp_path)
    assert sum(results.values()) == 400
    for kind in ("csv", "tsv", "jsonl", "parquet"):
        assert results[f"{kind} read, as a peer reads it"] > 5, results
        assert results[f"{kind} refused"] > 5, results
