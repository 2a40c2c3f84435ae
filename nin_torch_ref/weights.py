"""Read a PyTorch weights file without executing code in it."""

import os
import stat
import warnings
import zipfile
from collections.abc import Mapping
from typing import BinaryIO

import torch


def load_state_dict_file(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Return the state dict of a ``.pt`` or ``.pth`` file, on the CPU.

    A ``.pt`` file is a pickle, and unpickling can execute code; ``weights_only`` allows only
    tensors and plain containers.

    Raises:
        ValueError: the file is truncated, not a PyTorch file, or contains more than named tensors.
        FileNotFoundError: the file does not exist.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would block
        raise ValueError(f"{path} is not a file")
    with open(path, "rb") as file:
        try:
            _refuse_compressed(file)
            with warnings.catch_warnings():  # for other pickles, which fail below anyway
                warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
                state_dict = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a broken pickle can raise any exception
            raise ValueError(f"{path} is truncated or holds more than plain tensors") from error
    if not isinstance(state_dict, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor)
        for name, value in state_dict.items()
    ):
        raise ValueError(f"{path} holds something other than a state dict of named tensors")
    return dict(state_dict)


def _refuse_compressed(file: BinaryIO) -> None:
    """Refuse compressed archives: torch.save does not compress, so they may be zip bombs."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > file.seek(0, os.SEEK_END):
            raise ValueError("a compressed archive")
    file.seek(0)
