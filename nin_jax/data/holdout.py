"""Which training images are held out: for choices that must not be made on the test images."""

import numpy as np


def held_out(labels: np.ndarray | None, total: int, count: int, seed: int) -> np.ndarray:
    """Return which examples are held out: each class gives its share of them, drawn at random.

    A class with n examples gives n * count / total, rounded. scikit-learn's stratified split is not
    used: it refuses a class with a single example, and its draws may change between versions, so
    that a resumed run could train on what was held out.

    Args:
        labels: int [total]; None if they are not known, which draws from all examples alike.
        total: number of examples.
        count: number of examples to hold out, at most ``total``.
        seed: of the draw.

    Returns:
        bool [total], with ``count`` True.
    """
    # The numbers of RandomState are the same in all versions of numpy.
    drawn = np.random.RandomState(seed).permutation(total)
    if labels is not None:
        # Where an example comes among those of its class, as a fraction in (0, 1).
        by_class = np.argsort(labels[drawn], kind="stable")
        sizes = np.bincount(labels)
        ends = np.cumsum(sizes)
        owner = labels[drawn][by_class]
        place = np.empty(total)
        place[by_class] = (np.arange(total) - (ends - sizes)[owner] + 0.5) / sizes[owner]
        drawn = drawn[np.argsort(place, kind="stable")]
    held = np.zeros(total, bool)
    held[drawn[:count]] = True
    return held
