"""The encoder in torch as the runtime uses it: token ids -> sentence vectors, on a GPU, or on the CPU to compare with."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from sbert_mini.encoder.bert import MiniBert
from sbert_mini.encoder.pooling import SentenceHead
from sbert_mini.errors import UsageError
from sbert_mini.model.layout import ModelLayout
from sbert_mini.shapes import FloatArray
from sbert_mini.text.batching import pad
from sbert_mini.text.tokens import Tokens

GPU_TOKENS = 65_536
"""Tokens of a batch on a GPU, padding included, at most; `batch_size` is reached first. Not measured on one."""


class DeviceEngine:
    """A model's float weights on a device: bfloat16 on a GPU that computes with it, else float32.

    On the CPU torch keeps to its own number of threads (`torch.set_num_threads`).

    Args:
        layout: the model directory's description.
        device: a torch device: `cuda`, `cuda:1`, `mps`, `cpu`.

    Raises:
        UsageError: there is no such device.
        CorruptModelError: the weights are missing or misshapen.
    """

    def __init__(self, layout: ModelLayout, device: str) -> None:
        try:
            self._device = torch.device(device)
            torch.empty(1, device=self._device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"the device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
        halves = self._device.type == "cuda" and (
            torch.version.hip is not None
            or torch.cuda.get_device_capability(self._device) >= (8, 0)  # older ones emulate it
        )
        self._dtype = torch.bfloat16 if halves else torch.float32
        self._encoder = MiniBert.from_pretrained(layout.encoder_path, dtype=self._dtype, config=layout.config)
        self._encoder.to(self._device)
        self._head = SentenceHead(layout).to(self._device)
        self._pad_id = layout.config.pad_token_id
        self.tokens_per_batch = 512 if self._device.type == "cpu" else GPU_TOKENS
        self.divides_batches = False

    @property
    def name(self) -> str:
        """What computes, for people."""
        return f"torch on {self._device}, {str(self._dtype).removeprefix('torch.')}"

    @torch.inference_mode()
    def run(self, tokens: Sequence[Tokens], threads: int = 1) -> FloatArray:  # noqa: ARG002
        """Return the sentence vectors of a batch, (batch, dim), each of length 1; torch has threads of its own."""
        states, mask = self._states(tokens)
        vectors: FloatArray = functional.normalize(self._head(states, mask), dim=-1).cpu().numpy()
        return vectors

    @torch.inference_mode()
    def run_tokens(self, tokens: Sequence[Tokens]) -> list[FloatArray]:
        """Return the vectors of each text's tokens, (seq, hidden), as the encoder's last layer gives them."""
        if not tokens:
            return []
        padded: FloatArray = self._states(tokens)[0].cpu().numpy()
        return [rows[: len(text.ids)] for rows, text in zip(padded, tokens, strict=True)]

    def _states(self, tokens: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the vectors of a batch's tokens, (batch, seq, hidden), and its mask, (batch, seq)."""
        ids, mask, types = (torch.from_numpy(a).to(self._device, non_blocking=True) for a in pad(tokens, self._pad_id))
        return self._encoder(ids, mask, types).last_hidden_state.float(), mask
