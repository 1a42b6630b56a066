"""LoRA, through peft: the encoder's own weights stay, and low-rank updates beside them are trained."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from sbert_mini.encoder.bert import MiniBert
from sbert_mini.errors import CorruptModelError, MissingExtraError
from sbert_mini.files.durable import save_file
from sbert_mini.files.reading import check_regular
from sbert_mini.model.weights import WEIGHTS
from sbert_mini.training.config import LoraConfig

FOLDER = "lora"
_NAME = "default"


class Lora:
    """Low-rank updates of an encoder's matrices: `W + (α / r) B A`, with A and B trained and B 0 at first.

    A model directory holds the product with the updates merged in, so that everything loads it, and the updates alone in
    `lora/`, as peft reads them beside the weights that training began with.

    Args:
        model: the encoder; it is changed in place, and its own weights are frozen.
        config: r is `rank`, α `alpha`.

    Raises:
        MissingExtraError: peft is not installed.

    Source: Hu et al. 2021 (arXiv 2106.09685), equation 3, section 4.1.
    """

    def __init__(self, model: MiniBert, config: LoraConfig) -> None:
        try:
            import peft
            from peft.tuners.lora import LoraModel
        except ModuleNotFoundError as error:
            raise MissingExtraError("LoRA", "peft", "train") from error
        self.model = model
        self._config = peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=rf"encoder\.layer\.\d+\..*\.({'|'.join(sorted(config.targets))})",
            task_type="FEATURE_EXTRACTION",
        )
        self._wrapper = LoraModel(model, self._config, _NAME)

    def merged_weights(self) -> dict[str, Tensor]:
        """Return the encoder's weights under BERT's names, the updates merged in."""
        from peft.tuners.lora import LoraLayer

        state = {k.replace(".base_layer.", "."): t for k, t in self.model.state_dict().items() if ".lora_" not in k}
        for name, module in self.model.named_modules():
            if isinstance(module, LoraLayer):
                with torch.no_grad():
                    state[f"{name}.weight"] = state[f"{name}.weight"] + module.get_delta_weight(_NAME)
        return state

    def save(self, path: Path) -> None:
        """Write the merged weights over those of the model directory `path`, and the updates into its folder `lora/`."""
        weights = {name: t.detach().cpu().contiguous() for name, t in self.merged_weights().items()}
        save_file(weights, path / WEIGHTS, metadata={"format": "pt"})
        folder = path / FOLDER
        folder.mkdir(exist_ok=True)
        self._config.save_pretrained(str(folder))
        save_file(self._updates(), folder / "adapter_model.safetensors", metadata={"format": "pt"})

    def load(self, path: Path) -> None:
        """Load the updates that `save` wrote.

        Raises:
            CorruptModelError: the file is missing, damaged or of other updates.
        """
        file = path / FOLDER / "adapter_model.safetensors"
        try:
            tensors = load_file(check_regular(file))
        except Exception as error:  # the library raises its own
            raise CorruptModelError(f"{file} cannot be read: {error}") from error
        updates = self._updates()
        if {k: t.shape for k, t in updates.items()} != {k: t.shape for k, t in tensors.items()}:
            raise CorruptModelError(f"{file} holds other updates than the recipe's")
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if ".lora_" in name:
                    parameter.copy_(tensors[self._peft_name(name)])

    def _updates(self) -> dict[str, Tensor]:
        parameters = self.model.named_parameters()
        return {self._peft_name(n): p.detach().cpu().contiguous() for n, p in parameters if ".lora_" in n}

    @staticmethod
    def _peft_name(name: str) -> str:
        return f"base_model.model.{name}".replace(f".{_NAME}.", ".")
