"""Read a PyTorch weights file without executing code in it."""

import os
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch


def load_state_dict_file(path: str | os.PathLike[str]) -> dict[Any, Any]:
    """Return the state dict of a ``.pt`` or ``.pth`` file, on the CPU.

    A checkpoint is returned whole: the state dict may be one of its entries.

    A ``.pt`` file is a pickle, and unpickling can execute code; ``weights_only`` allows only
    tensors and plain containers.

    Raises:
        ValueError: the file is truncated, not a PyTorch file, or contains more than plain tensors,
            containers and numbers.
        FileNotFoundError: the file does not exist.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would block
        raise ValueError(f"{path} is not a file")
    with open(path, "rb") as file:
        try:
            _refuse_compressed(file)
            with warnings.catch_warnings():  # for other pickles, which fail below anyway
                warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
                content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a broken pickle can raise any exception
            raise ValueError(f"{path} {_reason(error)}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds something other than a state dict of named tensors")
    return dict(content)


def _reason(error: Exception) -> str:
    """Return why a file was not read; of PyTorch's message only the name of a class is kept."""
    if found := re.search(r"GLOBAL ([\w.]{1,100}) was not an allowed global", str(error)):
        return (
            f"holds a {found[1]}, which is not unpickled: save the network's state_dict() instead"
        )
    return "is truncated or holds more than plain tensors"


def _refuse_compressed(file: BinaryIO) -> None:
    """Refuse compressed archives: torch.save does not compress, so they may be zip bombs."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > file.seek(0, os.SEEK_END):
            raise ValueError("a compressed archive")
    file.seek(0)
