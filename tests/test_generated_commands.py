"""A sample of the generated command lines; all of them: python -m tests.generated.commands."""

import os

from generated.commands import check


def test_generated_command_lines_end_without_a_traceback(tmp_path):
    before = dict(os.environ)
    try:
        counts, wrong = check(60, 11, tmp_path, whole=False)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert wrong == []
    assert counts["exit code 0"] > 5
    assert counts["exit code 2"] > 5
