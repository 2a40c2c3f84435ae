"""Reading a PyTorch weight file without running what it holds."""

import os
import stat
import warnings
import zipfile
from collections.abc import Mapping
from typing import BinaryIO

import torch


def load_state_dict_file(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The state dict in a ``.pt`` or ``.pth`` file, on the CPU.

    A ``.pt`` file is a pickle, and unpickling can run code; ``weights_only`` admits nothing but
    tensors and plain containers.

    Raises:
        ValueError: the file is truncated, not a PyTorch file, or holds more than named tensors.
        FileNotFoundError: there is no such file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
        raise ValueError(f"{path} is not a file")
    with open(path, "rb") as file:
        try:
            _refuse_packed(file)
            with warnings.catch_warnings():  # of foreign pickles, which are refused just below
                warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
                state_dict = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a broken pickle fails anywhere in the unpickler, in any way
            raise ValueError(f"{path} is truncated or holds more than plain tensors") from error
    if not isinstance(state_dict, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor)
        for name, value in state_dict.items()
    ):
        raise ValueError(f"{path} holds something other than a state dict of named tensors")
    return dict(state_dict)


def _refuse_packed(file: BinaryIO) -> None:
    """torch.save packs nothing: a zip archive that unpacks to more than its size is a bomb."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > file.seek(0, os.SEEK_END):
            raise ValueError("a packed archive")
    file.seek(0)
