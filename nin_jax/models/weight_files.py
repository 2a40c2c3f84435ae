"""Read the arrays and the metadata of a ``.safetensors`` file."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nin_jax.errors import UserError, one_line
from nin_jax.models.geometry import MAX_PARAMS
from nin_jax.models.preprocessing import Preprocessing, from_metadata
from nin_jax.models.recognition import CAN_BE_READ, find, unknown_names
from nin_jax.models.state_dict import check_shapes
from nin_jax.reading import check_file, is_torch, shown

MAX_FILE_BYTES = 8 * MAX_PARAMS + 2**20  # the largest network in float64, and the header


def read_preprocessing(path: str | Path) -> Preprocessing | None:
    """Read what the metadata of a ``.safetensors`` file say; None if they say nothing.

    Raises:
        UserError: the file cannot be read, or its preprocessing is damaged.
    """
    with _opened(path) as file:
        return from_metadata(file.metadata(), path)


def load_safetensors(
    path: str | Path, fitting: Mapping[str, tuple[int, ...]] | None = None, network: str = ""
) -> dict[str, np.ndarray]:
    """Read a ``.safetensors`` file.

    Args:
        path: of the file.
        fitting: result of `expected_shapes`; if given, the file's header is compared with it
            before any array is read, and other arrays are left empty.
        network: name of that network, for the error message.

    Returns:
        Arrays by their name in the file, for `from_torch`: float16, bfloat16, float32 or float64
        ones, and others that a file may have.

    Raises:
        UserError: the file is missing, truncated or in another format (such as a pickle), or its
            arrays do not fit.
    """
    with _opened(path) as file:
        headers = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        wanted = list(headers) if fitting is None else _find(headers, fitting, network)
        for name in wanted:
            kind = headers[name].get_dtype()
            if kind.startswith("F") and kind not in ("F16", "F32", "F64"):  # unknown to NumPy
                raise UserError(f"{path}: {shown(name)} holds {kind}; {CAN_BE_READ}")
        unread = dict.fromkeys(headers, np.zeros(0))  # `recognize` only names them
        return unread | {name: file.get_tensor(name) for name in wanted}


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """Open a ``.safetensors`` file; every error while it is open becomes one line."""
    from safetensors import SafetensorError, safe_open

    problem = f"cannot read weights {path}"
    check_file(path, MAX_FILE_BYTES, problem)
    try:
        with one_line(problem), safe_open(path, "numpy") as file:
            yield file
    except UserError:
        raise
    except (SafetensorError, ValueError) as error:  # such as sides too large for NumPy
        raise _damaged(path, error) from None


def _find(headers: Mapping[str, Any], fitting: Mapping[str, Any], network: str) -> list[str]:
    """Return the names of the network's arrays in a file, after a check of all shapes."""
    if (match := find(headers, fitting)) is None:
        raise unknown_names(headers)
    shapes = {own: tuple(headers[name].get_shape()) for own, name in match.names.items()}
    check_shapes(shapes | dict.fromkeys(match.foreign, ()), fitting, network)
    return list(match.names.values())


def _damaged(path: str | Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300]  # it may quote the file
    other = "Caffe" if Path(path).suffix == ".caffemodel" else "PyTorch" if is_torch(path) else ""
    hint = f"; it is a {other} file: convert it with scripts/convert.py" if other else ""
    return UserError(f"{path} is not a complete safetensors file: {reason}{hint}")
