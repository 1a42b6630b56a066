"""NumPy arrays -> tensors of torch, for callers who ask for tensors."""

import torch

from sbert_mini.shapes import AnyArray


def tensor_of(array: AnyArray) -> torch.Tensor:
    """Return a tensor on the CPU that shares the array's memory. Shapes: those of `array`."""
    return torch.from_numpy(array)
