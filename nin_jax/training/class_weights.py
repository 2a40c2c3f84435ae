"""Weights of the classes in the training loss."""

import numpy as np

from nin_jax.errors import UserError
from nin_jax.training.recipes import ClassWeights


def weights_of_classes(
    rule: ClassWeights, labels: np.ndarray | None, num_classes: int
) -> np.ndarray | None:
    """Return the weight of each class, float32 [num_classes]; None for the rule "none".

    "balanced" is scikit-learn's rule: it gives a class with c of the n training images the weight
    n / (k c), where k is the number of classes that have images. So each of them has the same total
    weight. A class without images has 0.

    Args:
        rule: a recipe's ``class_weights``.
        labels: int [n], those of the training images; None if they are not known.
        num_classes: number of logits.

    Raises:
        UserError: the rule needs the labels, and they are not known.
    """
    if rule == "none":
        return None
    if labels is None:
        raise UserError(
            "--class-weights needs the labels of all training images, which this dataset does not "
            "know when it is streamed: use --feed resident"
        )
    counts = np.bincount(labels, minlength=num_classes)
    share = np.count_nonzero(counts) * counts / len(labels)
    return np.divide(1, share, out=np.zeros(num_classes), where=counts > 0).astype(np.float32)
