"""TensorBoard's folder, unless the user named one."""

import os

import pytest

from sbert_mini.recipes.settings import tensorboard_in

NAME = "TENSORBOARD_LOGGING_DIR"


@pytest.mark.parametrize("named", [None, "mine"])
def test_the_users_folder_of_tensorboard_stays(tmp_path, monkeypatch, named):
    if named is None:
        monkeypatch.delenv(NAME, raising=False)
    else:
        monkeypatch.setenv(NAME, named)
    with tensorboard_in(tmp_path):
        assert os.environ[NAME] == (named or str(tmp_path))
    assert os.environ.get(NAME) == named
