"""The words for array axes, and the array types that the torch-free half passes around.

Docstrings write a shape as a tuple of these words:

| word | axis |
| --- | --- |
| `batch` | texts that are computed together |
| `seq` | tokens of a text, padding included |
| `hidden` | components of a token vector |
| `heads`, `head_dim` | attention heads, and components a head; `heads * head_dim == hidden` |
| `vocab` | entries of the word-piece vocabulary |
| `dim` | components of a sentence vector |
| `texts`, `queries`, `rows` | texts to encode, texts to search for, stored texts |
| `k` | hits a query |

A `similarity` is larger when two texts are closer; nothing here is called a distance.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:  # numpy.typing is not needed to run
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float32]
    IntArray: TypeAlias = NDArray[np.int64]
    AnyArray: TypeAlias = NDArray[Any]
else:
    FloatArray = IntArray = AnyArray = np.ndarray
