"""Made-up results of a study, with rows for every section of its page."""

from nin_jax.models.variants import EXERCISE
from nin_jax.study import content
from nin_jax.study.grid import ABLATION, Cell
from nin_jax.study.statistics import group_rows


def row(variant="nin", recipe="modern", seed=0, accuracy=0.5, change="", **more):
    """Return a made-up row of results.jsonl."""
    cell = Cell(variant, recipe, seed, change)
    return {
        "cell": cell.name,
        "variant": variant,
        "recipe": recipe,
        "change": change,
        "seed": seed,
        "dataset": "fashion_mnist",
        "image_size": [67, 67],
        "train_images": 100,
        "test_images": 20,
        "evaluated_on": "test images",
        "epochs": 2,
        "settings": {"lr": 0.03, "batch_size": 64},
        "setting": {},
        "test_accuracy": accuracy,
        "test_accuracy_per_class": [accuracy, None, 1.0],
        "train_loss": [2.0, 1.0],
        "test_loss": [2.0, 1.5],
        "test_accuracy_by_epoch": [accuracy / 2, accuracy],
        "test_accuracy_by_size": {"67": accuracy},
        "test_images_by_size": 20,
        "dead_classes": [],
        "epochs_to_80": 2 if accuracy >= 0.8 else None,
        "collapsed": accuracy < 0.2,
        "images_per_second": 100.0,
        "device": "cpu",
        "versions": {"jax": "0"},
    } | more


def network(**more):
    """Return made-up costs of a network, as in study.json."""
    return {
        "batch_size": 64,
        "head_map": [1, 1],
        "params": 1_000_000,
        "macs": 2_000_000,
        "flops_per_training_step": 3_000_000,
        "train_bytes": 2**20,
        "predict_bytes": None,
        "step_ms": 640.0,
        "device": "cpu",
    } | more


NETWORKS = {
    f"{variant} {recipe}": network() for variant in EXERCISE for recipe in ("d2l", "modern")
}


def summary(rows):
    return group_rows(rows, NETWORKS)


def everything():
    """Return rows of a whole study; each network gains about 0.001 on the one before."""
    found = []
    for i, variant in enumerate(EXERCISE):
        for recipe in ("d2l", "modern"):
            for seed in range(3):
                accuracy = 0.5 + 0.01 * seed + 0.001 * i * (1 + seed / 10)
                by_size = {"67": accuracy} if variant == "nin_fc" else {"67": accuracy, "101": 0.3}
                found.append(row(variant, recipe, seed, accuracy, test_accuracy_by_size=by_size))
    return found + [row("nin", "modern", s, 0.4, change) for change in ABLATION for s in range(3)]


def study(rows, **more):
    """Return a study with three classes."""
    names = ["T-shirt", "trousers", "<b>bag</b> & co"]
    return content.Study(rows, summary(rows), names, [["python", "scripts/study.py"]], **more)
