"""LoRA: merged and unmerged, here and in peft."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from small_tasks import arguments, sentences, small_model, tasks

from sbert_mini.encoder.module import load
from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.training.config import FitterConfig, LoraConfig
from sbert_mini.training.lora import Lora
from sbert_mini.training.trainer import MultiTaskTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # between peft and transformers
def test_lora_merged_and_unmerged_are_one_function_here_and_in_peft(make_model, tmp_path):
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer
    from transformers import BertModel

    path = make_model(seed=4)
    model = load(path, device="cpu")
    texts = sentences(6, 3)
    before = model.encode(texts)
    model[0].model.requires_grad_(True)
    trainer = MultiTaskTrainer(
        model, arguments(tmp_path / "run", max_steps=8, learning_rate=1e-2), tasks(),
        FitterConfig(batch_size=12, lora=LoraConfig(4, 8.0, 0.0, ["query", "value", "dense"])),
    )  # fmt: skip
    np.testing.assert_allclose(model.encode(texts), before, atol=1e-6)  # B is 0 at first
    plain = {n for n, p in model.named_parameters() if p.requires_grad and "lora" not in n}
    assert plain == set()
    trainer.train()
    after = model.encode(texts)
    assert np.abs(after - before).max() > 1e-3
    trainer.save_model(str(tmp_path / "out"))
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts), after, atol=1e-5)
    np.testing.assert_allclose(load(tmp_path / "out", device="cpu").encode(texts), after, atol=1e-5)
    unmerged = PeftModel.from_pretrained(BertModel.from_pretrained(path), str(tmp_path / "out" / "lora")).eval()
    features = model[0].preprocess(texts)
    with torch.no_grad():
        theirs = unmerged(**{k: features[k] for k in ("input_ids", "attention_mask", "token_type_ids")})[0]
        ours = model[0](features)["token_embeddings"]
    mask = features["attention_mask"].bool()
    torch.testing.assert_close(theirs[mask], ours[mask], atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
def test_plain_sentence_transformers_adds_lora_to_what_we_save(make_model, tmp_path):
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer

    load(make_model(seed=4), device="cpu").save(str(tmp_path / "saved"))
    model = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    model.add_adapter(LoraConfig(r=2, target_modules=["query", "value"], task_type="FEATURE_EXTRACTION"))
    assert any("lora_A" in name for name, p in model.named_parameters() if p.requires_grad)
    assert model.encode(["the cat"]).shape == (1, model.get_embedding_dimension())


def test_lora_refuses():
    for options, text in (
        ({"rank": 0}, "lora.rank must be at least 1; found 0"),
        ({"targets": ["keys"]}, "lora.targets must be some of query, key, value, dense; found 'keys'"),
        ({"targets": []}, "found none"),
    ):
        with pytest.raises(UsageError, match=text):
            LoraConfig(**options)
    with pytest.raises(UsageError, match="with LoRA the encoder's own weights stay frozen"):
        FitterConfig(lora=LoraConfig(), unfreeze_every=3)
    with pytest.raises(UsageError, match="lora needs an encoder that is trained, and it is frozen"):
        FitterConfig(lora=LoraConfig(), encoder="frozen")


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
