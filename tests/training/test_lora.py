"""Updates that cannot be taken up again."""

import subprocess
import sys

import pytest
from small import small_model

from sbert_mini.errors import CorruptModelError
from sbert_mini.training.config import LoraConfig
from sbert_mini.training.lora import Lora


def test_updates_that_are_torn_or_of_another_rank_are_refused(tmp_path):
    def updates(rank):
        return Lora(small_model(tmp_path / "start")[0].model, LoraConfig(rank=rank))

    (tmp_path / "out").mkdir()
    updates(2).save(tmp_path / "out")
    updates(2).load(tmp_path / "out")
    with pytest.raises(CorruptModelError, match=r"adapter_model\.safetensors holds other updates than the recipe's"):
        updates(3).load(tmp_path / "out")
    file = tmp_path / "out" / "lora" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CorruptModelError, match=r"adapter_model\.safetensors cannot be read"):
        updates(2).load(tmp_path / "out")


def test_without_peft_the_error_says_how_to_install_it(tmp_path):
    script = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name == "peft":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from sbert_mini.errors import MissingExtraError
from sbert_mini.training.config import LoraConfig
from sbert_mini.training.lora import Lora
try:
    Lora(None, LoraConfig())
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == ("LoRA needs the package peft, which is not installed: pip install 'sbert-mini[train]'\n"), (
        done.stderr
    )
