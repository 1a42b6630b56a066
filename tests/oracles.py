"""Independent oracles that several tests compare with."""

import numpy as np


def algorithm_1(gradients, orders):
    """Yu et al. 2020, algorithm 1, word by word on vectors."""
    total = np.zeros_like(gradients[0])
    for i, order in enumerate(orders):
        g = gradients[i].copy()
        for j in order:
            if j == i:
                continue
            if g @ gradients[j] < 0:
                g -= (g @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
        total += g
    return total
