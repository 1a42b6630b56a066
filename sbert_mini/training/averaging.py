"""Averages of weights over a training run (`WeightAverage`) and over several trained models (`soup`)."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.files import outputs
from sbert_mini.files.durable import save_file
from sbert_mini.files.json_schema import Anything, read_json
from sbert_mini.files.reading import NotRegularError, check_regular
from sbert_mini.model.layout import GRAPHS_FOLDER
from sbert_mini.training.config import AVERAGES, AverageConfig

FILE = "average.safetensors"


class WeightAverage:
    """A moving average of weights, beside those that are trained.

    * `ema`: after each step `θ̄ ← d θ̄ + (1 - d) θ`, with `d = min(decay, (1 + t) / (10 + t))` at step t, so that a short run does
      not remember where it began.
    * `checkpoints`: the mean of the weights at each evaluation, `θ̄ ← (n θ̄ + θ) / (n + 1)`.

    Args:
        modules: what is averaged, by name.
        rule: one of `config.AVERAGES`.
        decay: of `ema`.
        warm: whether d starts low; False for `d = decay` throughout.

    Source: Polyak and Juditsky 1992; the rising d is that of `tf.train.ExponentialMovingAverage`; `checkpoints` is Izmailov et
    al. 2018 (arXiv 1803.05407), algorithm 1.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        rule: str = "ema",
        decay: float = AverageConfig.decay,
        *,
        warm: bool = True,
    ) -> None:
        if rule not in AVERAGES:
            raise UsageError(f"the average must be one of {', '.join(AVERAGES)}; found {rule!r}")
        self.rule, self.decay, self.warm = rule, AverageConfig(decay=decay).decay, warm
        self.count = 0
        self._live = {f"{name}.{key}": p for name, module in modules.items() for key, p in module.named_parameters()}
        self.weights: dict[str, Tensor] = {key: p.detach().clone() for key, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of now into the average: after each step (`ema`), or at an evaluation (`checkpoints`)."""
        self.count += 1
        if self.rule == "ema":
            decay = min(self.decay, (1 + self.count) / (10 + self.count)) if self.warm else self.decay
        else:
            decay = (self.count - 1) / self.count
        averages, live = list(self.weights.values()), [p.detach() for p in self._live.values()]
        torch._foreach_lerp_(averages, live, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average where the weights are, inside."""
        live = {key: p.data for key, p in self._live.items()}
        for key, p in self._live.items():
            p.data = self.weights[key]
        try:
            yield
        finally:
            for key, p in self._live.items():
                p.data = live[key]

    @torch.no_grad()
    def copy_to_weights(self) -> None:
        """Make the average the weights."""
        for key, p in self._live.items():
            p.copy_(self.weights[key])

    def save(self, file: Path) -> None:
        """Write the average and its count."""
        tensors = {key: t.cpu().contiguous() for key, t in self.weights.items()}
        save_file({**tensors, "count": torch.tensor(self.count)}, file)

    def load(self, file: Path) -> None:
        """Load what `save` wrote.

        Raises:
            CorruptModelError: the file is missing, damaged or of other weights.
        """
        try:
            tensors = load_file(check_regular(file))
        except Exception as error:  # the library raises its own
            raise CorruptModelError(f"{file} cannot be read: {error}") from error
        self.count = int(tensors.pop("count", torch.tensor(0)))
        if set(tensors) != set(self.weights):
            raise CorruptModelError(f"{file} holds an average of other weights")
        for key, tensor in tensors.items():
            self.weights[key] = tensor.to(self.weights[key])


def soup(models: Sequence[Path], output: Path) -> None:
    """Write the uniform soup of several models of one shape: each weight is the mean of theirs, task heads included.

    Everything else (tokenizer, settings, card) is the first one's; graphs and LoRA's unmerged updates, which are one model's, are
    left out.

    Args:
        models: at least two model directories, trained from the same start.
        output: the directory to be written; it must not exist, or be empty.

    Raises:
        UsageError: there are fewer than two models, they differ in shape or in their heads, or the output exists.
        CorruptModelError: a file cannot be read.

    Source: Wortsman et al. 2022 (arXiv 2203.05482), section 2, "uniform soup".
    """
    if len(models) < 2:
        raise UsageError("a soup needs at least two models")
    output = outputs.with_name(output)
    outputs.check_new(output)
    files = [_weight_files(model) for model in models]
    for model, model_files in zip(models[1:], files[1:], strict=True):
        if model_files != files[0]:
            other = sorted(set(model_files) ^ set(files[0]))
            raise UsageError(f"{model} and {models[0]} do not hold the same weights: {', '.join(map(str, other))}")
    configs = [_shape(model) for model in models]
    if any(config != configs[0] for config in configs):
        raise UsageError("the models differ in their configuration or in their heads' labels")
    part = outputs.new_part(output)
    left_out = shutil.ignore_patterns(GRAPHS_FOLDER, "lora")
    shutil.copytree(models[0], part, ignore=left_out, dirs_exist_ok=True, copy_function=_copy)
    for file in files[0]:
        tensors_of = [_read(model / file) for model in models]
        for model, tensors in zip(models, tensors_of, strict=True):
            if {k: t.shape for k, t in tensors.items()} != {k: t.shape for k, t in tensors_of[0].items()}:
                raise UsageError(f"{model / file} holds weights of other names or shapes than {models[0] / file}")
        mean = {
            k: torch.stack([t[k].double() for t in tensors_of]).mean(dim=0).to(first.dtype)
            for k, first in tensors_of[0].items()
        }
        save_file(mean, part / file, metadata={"format": "pt"})
    outputs.finish(part, output)


def _copy(source: str, target: str) -> None:
    """Copy a file of a model: a link to a device would never end."""
    try:
        shutil.copy2(check_regular(Path(source)), target)
    except NotRegularError as error:
        raise CorruptModelError(f"{source} cannot be copied: {error}") from error


def _weight_files(model: Path) -> list[Path]:
    """Return the weights that a soup averages. The mean of two products B A is not the product of the means."""
    files = (file.relative_to(model) for file in model.rglob("*.safetensors"))
    return sorted(file for file in files if file.parts[0] != "lora")


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(check_regular(file)))
    except Exception as error:  # the library raises its own
        raise CorruptModelError(f"{file} cannot be read: {error}") from error


def _shape(model: Path) -> list[object]:
    shape: list[object] = []
    for file in [model / "config.json", model / "modules.json", *sorted(model.glob("heads/*/config.json"))]:
        data = read_json(file, Anything(), CorruptModelError) if file.is_file() else None
        if isinstance(data, dict):  # what does not shape the weights
            data = {k: v for k, v in data.items() if k not in ("_name_or_path", "transformers_version", "dtype")}
            data = {k: v for k, v in data.items() if "dropout" not in k}
        shape.append(data)
    return shape
