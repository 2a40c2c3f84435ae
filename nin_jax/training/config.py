"""The configuration of a run, which is also the command line of scripts/train.py.

A recipe says how to train. A `TrainConfig` names a recipe and may override any of its values;
`recipe_of` combines the two.
"""

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from nin_jax.data.datasets import FOLDER_PREFIX
from nin_jax.errors import UserError, option_of, unknown_name
from nin_jax.models.variants import get_variant
from nin_jax.training.recipes import RECIPES, Recipe
from nin_jax.validation import Count, FilePath, optional, validated

Precision = Literal["float32", "bfloat16"]


@validated(options=True)
class SetupOptions:
    """What to train, on which data and devices: for runs, and for tests before a run."""

    variant: str = "nin"
    """Network: a built-in name (see --list-variants), or a .json or .toml file."""

    recipe: str = "d2l"
    """How to train: d2l (as the book), modern (more accurate in less time) or paper (as the authors
    of Network in Network: 260 epochs with steps of the learning rate)."""

    dataset: str | None = None
    """fashion_mnist, mnist, kmnist, digits, cifar10, cifar100, svhn, emnist (emnist:letters and the
    like), tfds:NAME or folder:PATH. Default: fashion_mnist, or digits if fashion_mnist is not on
    this machine and cannot be downloaded."""

    data_dir: FilePath | None = None
    """Folder with the dataset's files. Default: $NIN_DATA_DIR, or the user's data folder."""

    follow_links: bool = False
    """Follow links in folder:PATH, also to files outside that folder. Default: links that lead out
    of it are refused, because in a folder from someone else they could lead to any file."""

    crop: bool = False
    """Scale the pictures of folder:PATH by their shorter side and cut out the center, here and in
    scripts/predict.py. Default: resize them, whatever their proportions."""

    deterministic: bool = False
    """On a GPU, use only operations that return the same bits each time, which is slower. On a CPU
    this is always so."""

    micro_batch_size: Count | None = None
    """Images per micro-batch; the gradients of a batch's micro-batches are added up. Default: on a
    CPU as many as fit its caches, elsewhere the whole batch."""

    steps_per_dispatch: Count | None = None
    """Optimizer steps per call of the compiled program. Default: 1 on a CPU, 10 elsewhere."""

    limit_train: Count | None = None
    """Use only the first N training images. Default: all."""

    holdout: Count | None = None
    """Hold out N training images, a share of each class drawn with --seed, and evaluate on
    them instead of the test images: to choose a recipe without looking at the test set, or for an
    image folder without one."""

    num_classes: Count | None = None
    """Number of logits. Default: the number of classes of the dataset."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the initial weights, the order of the images, dropout and augmentation."""

    init_from: str | None = None
    """Start from these weights: a run's folder, a .safetensors file, or pretrained:NAME. Layers
    whose shape differs (channels or classes) are initialized. Default: all are initialized."""

    freeze: bool = False
    """With --init-from, train only the head; all other layers keep their weights."""

    precision: Precision = "float32"
    """Precision of the computation; parameters, logits and loss are always float32. A CPU
    sums convolutions in float32, and multiplies bfloat16 values only if it has instructions for
    them (AVX512-BF16, AMX)."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to run; auto uses a GPU if JAX finds one."""

    devices: Count | Literal["all"] = "all"
    """Number of devices that share each batch."""

    shard_params: bool = False
    """Shard the parameters and the optimizer state over the devices instead of replicating them."""

    feed: Literal["auto", "resident", "stream"] = "auto"
    """How training images reach the devices: resident keeps all of them on every device, stream
    reads each device's share of the batches when it is needed. Default: resident if they fit and
    there is one process."""

    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder, so that the next run starts faster."""


@validated(options=True)
class RunOptions(SetupOptions):
    """The options of a run, except those of its recipe."""

    workdir: FilePath | None = None
    """Folder for everything that the run writes. Default: a new folder under runs/."""

    resume: bool = False
    """Continue the run in --workdir from its last checkpoint."""

    exact_resume: bool = True
    """With --resume, refuse another device, version of JAX or setting of JAX, if it would change
    the numbers of the run. --no-exact-resume accepts the change."""

    checkpoint_every: str = "10min"
    """How often to save a checkpoint within an epoch: 200 means steps, 10min or 30s means time. A
    checkpoint is always saved at the end of an epoch."""

    keep_checkpoints: Count = 2
    """Number of the newest checkpoints to keep, besides the best."""

    skip_nonfinite: bool = False
    """Skip and count the steps whose gradient is not finite. Default: such a step stops the run,
    and the inputs of the step are saved."""

    steps: Count | None = None
    """Train at least this many optimizer steps, in whole epochs: a small dataset is repeated more
    often. Replaces --epochs."""

    limit_test: Count | None = None
    """Use only the first N test images. Default: all."""

    patience: Count | None = None
    """With --holdout, stop when the accuracy on the held-out images has not risen for N
    epochs. Default: train all epochs."""

    distributed: bool = False
    """Run as one of several processes. The rest is detected under SLURM, and under Open MPI and
    Kubernetes where JAX supports them; otherwise give the next three options."""

    coordinator: str | None = None
    """Host and port of the first process, reachable from all others, such as 10.0.0.1:1234."""

    processes: Count | None = None
    """Number of processes."""

    process_index: Annotated[int, Field(ge=0)] | None = None
    """Index of this process, from 0."""

    lr_batch_size: Count | None = None
    """Batch size for which --lr was chosen: the run's learning rate is --lr times --batch-size
    divided by this number (Goyal et al. 2017). For large batches, with --warmup. Default: --lr is
    not changed."""

    list_variants: bool = False
    """Print the built-in networks with their parameters and MACs, and exit."""

    @property
    def scored(self) -> str:
        """Which images score the network after each epoch: "test" or "held-out"."""
        return "test" if self.holdout is None else "held-out"


if TYPE_CHECKING:
    RecipeOptions = Recipe
else:
    RecipeOptions = optional(Recipe)


@validated(options=True)
class TrainConfig(RecipeOptions, RunOptions):
    """Train a Network in Network. An option that is not given has the recipe's value."""

    # The fields are those of `RunOptions`, then those of `Recipe`, where None means the recipe's
    # value. A value that is out of range raises a `UserError`.


def recipe_of(config: TrainConfig) -> Recipe:
    """Return the recipe of a configuration, with the values that the configuration overrides.

    Raises:
        UserError: the recipe is unknown, or values contradict each other.
    """
    if config.recipe not in RECIPES:
        raise unknown_name("recipe", config.recipe, RECIPES)
    overrides = {field.name: getattr(config, field.name) for field in fields(Recipe)}
    overrides = {name: value for name, value in overrides.items() if value is not None}
    recipe = replace(RECIPES[config.recipe](get_variant(config.variant)), **overrides)
    if config.lr_batch_size is not None:
        recipe = replace(recipe, lr=recipe.lr * recipe.batch_size / config.lr_batch_size)
    if config.steps is not None and config.epochs is not None:
        raise UserError("give --steps or --epochs, not both")
    _check_needs(config, recipe)
    if recipe.schedule == "steps" and not recipe.lr_steps:
        raise UserError("--schedule steps needs --lr-steps, the fractions of the run, as 0.5 0.75")
    if recipe.schedule == "steps" and recipe.warmup >= recipe.lr_steps[0]:
        raise UserError(
            f"--warmup {recipe.warmup:g} must end before the first of --lr-steps, "
            f"{recipe.lr_steps[0]:g}"
        )
    if recipe.nesterov and recipe.optimizer != "adam" and recipe.momentum == 0:
        raise UserError("--nesterov needs --momentum above 0; --nesterov False turns it off")
    return recipe


def _check_needs(config: TrainConfig, recipe: Recipe) -> None:
    """Refuse an option that does nothing without another one."""
    is_folder = (config.dataset or "").startswith(FOLDER_PREFIX)
    folder = is_folder, f"--dataset {FOLDER_PREFIX}PATH"
    steps = recipe.schedule == "steps", "--schedule steps"
    several = config.distributed, "--distributed"
    needs = {  # option: whether it has an effect, and what it needs
        "patience": (
            config.holdout is not None,
            "--holdout, the number of training images to hold out: the accuracy on the test images "
            "must not decide how long a run trains",
        ),
        "freeze": (
            config.init_from is not None,
            "--init-from, the weights to keep: layers that are initialized at random and never "
            "trained are of no use",
        ),
        "momentum": (
            recipe.optimizer != "adam" or recipe.momentum == 0,
            "--optimizer sgd or muon: adam has its own",
        ),
        "nesterov": (
            recipe.optimizer != "adam",
            "--optimizer sgd or muon: adam has no Nesterov momentum here",
        ),
        **dict.fromkeys(("lr_steps", "lr_factor"), steps),
        **dict.fromkeys(("crop", "follow_links"), folder),
        **dict.fromkeys(("coordinator", "processes", "process_index"), several),
    }
    for option, (acts, wanted) in needs.items():
        value = getattr(config, option)
        if value is not None and value is not False and not acts:
            raise UserError(f"{option_of(option)} needs {wanted}")


def check_warmup(config: TrainConfig, steps: int) -> None:
    """Raise a `UserError` if the given warm-up is less than one of the run's steps."""
    if config.warmup and config.warmup * steps < 1:
        raise UserError(
            f"--warmup {config.warmup:g} has no effect: it is less than one of {steps:,} steps"
        )
