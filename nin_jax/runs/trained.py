"""A trained network: read from a run, or from the weights that ship with the package."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from flax import nnx

from nin_jax.data.datasets import Dataset
from nin_jax.errors import UserError
from nin_jax.models import convert, pretrained
from nin_jax.models.nin import NiN
from nin_jax.models.preprocessing import Preprocessing
from nin_jax.runs import manifest, resuming, workdir
from nin_jax.runs.examples import load_data
from nin_jax.runs.preparation import Initial, micro_batch_size
from nin_jax.training.config import TrainConfig
from nin_jax.training.device import select_device, use_compilation_cache

PRETRAINED_PREFIX = "pretrained:"


@dataclass(frozen=True)
class Trained:
    """A trained network, with what is needed to use it and to score it again.

    Attributes:
        model: the network.
        class_names: one for each logit.
        config: names the dataset, for `examples.load_data`.
        data_checksum: checksum of the dataset.
        batch_size: images scored at a time.
        origin: the run's folder, or the name of the shipped weights.
        folder: the run's folder; None for shipped weights.
        step: of the checkpoint that the weights are from; None for the last weights.
    """

    model: NiN
    class_names: tuple[str, ...]
    config: TrainConfig
    data_checksum: str
    batch_size: int
    origin: str
    folder: Path | None = None
    step: int | None = None

    def dataset(self, data_dir: Path | None = None) -> Dataset:
        """Return the dataset of the training, for the model's image size.

        Args:
            data_dir: folder with the dataset's files; None for that of the training.

        Raises:
            UserError: the data are missing, or are not those of the training.
        """
        data_dir = data_dir or self.config.data_dir
        config = replace(self.config, data_dir=data_dir, image_size=self.model.image_size)
        dataset = load_data(config)
        resuming.check_same_data(self.data_checksum, dataset, self.origin)
        return dataset


@dataclass(frozen=True)
class Source:
    """Where to read a trained network: options that several scripts share."""

    workdir: Path | None = None
    """Folder of a run of scripts/train.py."""

    pretrained: str | None = None
    """Instead of a run, weights that ship with the package: nin, or nin-fashion_mnist."""

    weights: Path | None = None
    """Another .safetensors file with the run's parameters. Default: the run's own."""

    best: bool = False
    """Take the weights of the best epoch by test or held-out accuracy, not those of the last."""

    checkpoint: int | None = None
    """Take the weights of the run's checkpoint after this step instead of its last ones."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to run; auto uses a GPU if JAX finds one."""

    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder, for a faster next start."""

    def load(self) -> Trained:
        """Select the device, turn on the compilation cache, and return the network.

        Raises:
            UserError: neither or both of ``workdir`` and ``pretrained`` are given, several weights
                are chosen, there is no such run, name or checkpoint, or the weights do not fit.
        """
        if (self.workdir is None) == (self.pretrained is None):
            raise UserError(
                "give one of --workdir, the folder of a run, and --pretrained, weights that ship "
                f"({', '.join(pretrained.list_pretrained())})"
            )
        chosen = {"--weights": self.weights, "--checkpoint": self.checkpoint}
        given = [name for name, value in chosen.items() if value is not None]
        given += ["--best"] if self.best else []
        if given and self.workdir is None:
            raise UserError(f"{given[0]} goes with --workdir, not with --pretrained")
        if len(given) > 1:
            raise UserError(f"give one of {' and '.join(given)}")
        select_device(self.device)
        use_compilation_cache(self.compilation_cache)
        if self.workdir is not None:
            return _of_run(self.workdir, self)
        assert self.pretrained is not None
        return _of_card(pretrained.find(self.pretrained))


def load_run(folder: str | Path, *, best: bool = False, checkpoint: int | None = None) -> NiN:
    """Return the trained network of a run.

    Args:
        folder: the run's workdir.
        best: take the weights of the best epoch by test or held-out accuracy.
        checkpoint: take the weights of the checkpoint after this step. Without ``best`` and
            ``checkpoint``, the weights are those after the last epoch.

    Raises:
        UserError: the folder is not a run or has no such weights, or both are given.
    """
    if best and checkpoint is not None:
        raise UserError("give best or checkpoint, not both")
    saved = manifest.read_run(Path(folder))
    if not best and checkpoint is None:
        return saved.load_model()
    return _of_checkpoint(saved, checkpoint)[0]


def _of_checkpoint(saved: manifest.SavedRun, step: int | None) -> tuple[NiN, int]:
    """Return the network of a checkpoint, or of the best one, and its step."""
    from nin_jax.runs.checkpoint import Checkpoints  # Orbax is slow to import

    model = saved.make_model()
    workdir.check_for_checkpoints("--workdir", saved.folder)
    checkpoints = Checkpoints(saved.folder / workdir.CHECKPOINTS)
    name = checkpoints.find(step)
    nnx.update(model, checkpoints.read_params(name, nnx.state(model, nnx.Param)))
    return model, int(name[:8])


def _of_run(folder: Path, source: Source) -> Trained:
    saved, step = manifest.read_run(folder), None
    if source.best or source.checkpoint is not None:
        model, step = _of_checkpoint(saved, source.checkpoint)
    else:
        model = saved.load_model(source.weights)
    return Trained(
        model,
        saved.class_names,
        saved.config,
        saved.data_checksum,
        micro_batch_size(saved.config, saved.recipe, model),
        str(folder),
        folder,
        step,
    )


def _of_card(card: pretrained.Card) -> Trained:
    config = TrainConfig(card.variant, dataset=card.dataset, image_size=card.image_size)
    return Trained(
        pretrained.load_model(card),
        card.class_names,
        config,
        card.data_checksum,
        card.batch_size,
        card.name,
    )


def read_weights(source: str) -> Initial:
    """Return the weights that ``--init-from`` names, with their preprocessing.

    Args:
        source: a run's folder, a ``.safetensors`` file, or ``pretrained:NAME``.

    Raises:
        UserError: there is no such run, file or name, or it is damaged; of a run, its whole
            config.json is checked.
    """
    if source.startswith(PRETRAINED_PREFIX):
        card = pretrained.find(source.removeprefix(PRETRAINED_PREFIX))
        return Initial(pretrained.read_weights(card), pretrained.read_preprocessing(card))
    path = Path(source)
    if os.path.isdir(path):
        saved = manifest.read_run(path)
        return Initial(convert.load_safetensors(saved.weights), saved.preprocessing)
    arrays = convert.load_safetensors(path)
    return Initial(arrays, convert.read_preprocessing(path) or Preprocessing())
