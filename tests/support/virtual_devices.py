"""Training by 1, 2 and 8 virtual devices: python -m tests.support.virtual_devices FOLDER [STEPS].

It runs in its own process, because JAX creates its devices only once. For every layout it writes
the losses and parameters into ``NAME.npz`` and the compiled step into ``NAME.txt``. It prints how
much each layout differs from the step without a mesh, over 50 steps if no number is given.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

LAYOUTS = {  # devices, options of `make_layout`, and a name in RECIPES
    "one": (1, {}, "sgd"),
    "two": (2, {}, "sgd"),
    "eight": (8, {}, "sgd"),
    "eight_again": (8, {}, "sgd"),
    "eight_sharded": (8, {"shard_params": True}, "sgd"),
    "eight_shares": (8, {"own_examples": True}, "sgd"),
    "eight_weighted": (8, {}, "weighted"),
    "eight_sharded_muon": (8, {"shard_params": True}, "muon"),
}
DTYPES = "float32", "float64"
DEVICES, BATCH = 8, 20  # 20 is no multiple of 8
SCORED = (5, 100), (101, 4)  # test images, and the most in a part on one device

if __name__ == "__main__":
    FLAGS = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{FLAGS} --xla_force_host_platform_device_count={DEVICES}"

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import nin_jax
from nin_jax import Stage, Variant
from nin_jax.data import transforms
from nin_jax.data.datasets import Split
from nin_jax.training.class_weights import weights_of_classes
from nin_jax.training.evaluate import Score, evaluate, initial, make_eval_step, total
from nin_jax.training.feed import Resident, Shares, evaluation_parts
from nin_jax.training.optimizer import make_optimizer
from nin_jax.training.recipes import Recipe
from nin_jax.training.sharding import EVERYWHERE, Layout, make_layout
from nin_jax.training.step import (
    init_train_state,
    make_train_step,
    make_train_steps,
)

SIZE = (16, 16)
NETWORK = Variant("small", stages=(Stage(8, 3, padding=1), Stage(16, 3, padding=1)), dropout=0.5)
SGD = Recipe(
    lr=0.02,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    clip_norm=1.0,
    init="he",
    logit_relu=False,
    augment="flip_shift",
    batch_size=BATCH,
)
RECIPES = {
    "sgd": SGD,
    "weighted": replace(SGD, class_weights="balanced", label_smoothing=0.1),
    "muon": replace(SGD, optimizer="muon", momentum=0.95, weight_decay=0.01),
}


def examples(count: int) -> Split:
    """Images of ten kinds that can be told apart, with noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, count).astype(np.int32)
    kinds = rng.integers(0, 200, (10, 8, 8, 1))
    noise = rng.integers(0, 56, (count, 8, 8, 1))
    return Split((kinds[labels] + noise).astype(np.uint8), labels)


def train(path: Path, layout: Layout | None, dtype: str, recipe: Recipe, count: int) -> None:
    """Save the loss of each step and the parameters at the end; of a layout, its program too."""
    model = nin_jax.create_model(
        NETWORK, image_size=SIZE, init="he", logit_relu=False, dtype=dtype, param_dtype=dtype
    )
    graphdef, params = nnx.split(model, nnx.Param)
    optimizer = make_optimizer(recipe, count)
    state = init_train_state(params, optimizer, layout=layout)
    split = examples(130)  # 7 batches an epoch, 10 in the last one
    weights = weights_of_classes(recipe.class_weights, split.labels, 10)
    weights = None if weights is None else weights.astype(dtype)
    step = make_train_step(graphdef, optimizer, recipe, SIZE, 2, layout, weights)
    losses = []
    if layout is None:
        for i in range(count):
            order = transforms.epoch_order(jax.random.key(0), jnp.int32(i // 7), 130, BATCH)
            state, figures = step(state, split.images, split.labels, order)
            losses.append(float(figures.sums.loss / figures.sums.count))
        save(path, losses, state.params)
        return
    leaves = jax.tree.leaves(state.opt_state)
    held = [leaf.addressable_shards[0].data.size for leaf in leaves]
    np.save(path.with_suffix(".state.npy"), [sum(leaf.size for leaf in leaves), sum(held)])
    steps, program = make_train_steps(step, 1, layout, state), None
    one = layout.place(np.int32(1), EVERYWHERE)
    source = Shares(layout, split.read, 3) if layout.own_examples else Resident(layout, split)
    while len(losses) < count:
        order = np.asarray(
            transforms.epoch_order(jax.random.key(0), jnp.int32(len(losses) // 7), 130, BATCH)
        )
        for chunk in source.chunks(order, len(losses)):
            arguments = (chunk.images, chunk.labels, chunk.order, one)
            if program is None:
                program = steps.lower(state, *arguments).compile()
                path.with_suffix(".txt").write_text(program.as_text())
            for _ in range(min(chunk.steps, count - len(losses))):
                state, figures = program(state, *arguments)
                losses.append(float(figures.sums.loss[0] / figures.sums.count[0]))
    save(path, losses, layout.whole(state.params))


def save(path: Path, losses: list[float], params: object) -> None:
    np.savez(path.with_suffix(".npz"), *jax.tree.leaves(params), losses=np.array(losses))


def score(layout: Layout, count: int, most: int, text: Path | None = None) -> Score:
    """Of a network as it begins, on a test set of any size."""
    graphdef, params = nnx.split(nin_jax.create_model(NETWORK, image_size=SIZE), nnx.Param)
    step = make_eval_step(graphdef, SIZE, 3, layout)
    params = layout.place(params, EVERYWHERE)
    split = examples(count)
    if text is not None:
        images, labels = next(evaluation_parts(layout, split.read, count, most))
        state = initial(layout, 10)
        programs = step.lower(params, state, images, labels), total(layout).lower(state)
        for name, program in zip(("step", "total"), programs, strict=True):
            text.with_suffix(f".{name}.txt").write_text(program.compile().as_text())
    return evaluate(
        step,
        params,
        evaluation_parts(layout, split.read, count, most),
        count=count,
        num_classes=10,
        batch_size=3,
        layout=layout,
    )


def layouts_of(dtype: str) -> list[str]:
    """In float32 those with SGD: with Muon, rounding soon makes the runs differ."""
    if dtype == "float32":
        return [name for name, (*_, recipe) in LAYOUTS.items() if recipe == "sgd"]
    return [name for name in LAYOUTS if name != "eight_again"]


def main(folder: Path, steps: int = 50) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for dtype in DTYPES:
        with jax.enable_x64(dtype == "float64"):
            used = [LAYOUTS[name] for name in layouts_of(dtype)]
            for recipe in sorted({recipe for *_, recipe in used}):
                train(folder / f"{dtype}_none_{recipe}", None, dtype, RECIPES[recipe], steps)
            for name, (count, options, recipe) in zip(layouts_of(dtype), used, strict=True):
                layout = make_layout(jax.devices()[:count], **options)
                train(folder / f"{dtype}_{name}", layout, dtype, RECIPES[recipe], steps)
    for name, count in (("one", 1), ("eight", 8)):
        layout = make_layout(jax.devices()[:count])
        for size, most in SCORED:
            text = folder / "evaluation" if (count, size) == (8, 5) else None
            found = score(layout, size, most, text)
            path = folder / f"score_{name}_{size}_{most}.npz"
            np.savez(path, loss=found.loss, confusion=found.confusion)


def differences(folder: Path) -> str:
    """The largest difference of a loss and of a parameter from the step without a mesh."""
    lines = ["| layout | dtype | loss, any step | parameter, at the end |", "|---|---|---:|---:|"]
    for dtype in DTYPES:
        for layout in layouts_of(dtype):
            without = np.load(folder / f"{dtype}_none_{LAYOUTS[layout][2]}.npz")
            found = np.load(folder / f"{dtype}_{layout}.npz")
            most = {name: np.abs(found[name] - without[name]).max() for name in without}
            losses = most.pop("losses")
            lines.append(f"| {layout} | {dtype} | {losses:.1e} | {max(most.values()):.1e} |")
    return "\n".join(lines)


if __name__ == "__main__":
    FOLDER, *GIVEN = sys.argv[1:]
    main(Path(FOLDER), *map(int, GIVEN))
    print(differences(Path(FOLDER)))
