"""Files of weights: who may read them, and what a full disk leaves."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import nin_jax
from nin_jax import Preprocessing
from nin_jax.models import convert


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Let only a few bytes of any weights fit on the disk."""
    write_bytes = Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        if path.suffix != ".partial":
            return write_bytes(path, data)
        write_bytes(path, data[:9])
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", write)
        yield


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_decides_who_may_read_weights(tmp_path, tiny, mask, mode):
    model = nin_jax.create_model(tiny, image_size=16)
    before = os.umask(mask)
    try:
        convert.save_safetensors(model, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == mode


def test_weights_that_do_not_fit_on_the_disk_leave_the_older_ones(tmp_path, tiny):
    model, path = nin_jax.create_model(tiny, image_size=16), tmp_path / "a.safetensors"
    path.write_bytes(b"older weights")
    with full_disk(), pytest.raises(OSError, match="No space left on device"):
        convert.save_safetensors(model, path)
    assert path.read_bytes() == b"older weights"
    assert sorted(tmp_path.iterdir()) == [path, tiny]


def test_convert_on_a_full_disk_and_again_with_room(script, tiny):
    kept = Preprocessing(mean=(104, 117, 123), channel_order="bgr", resize="crop")
    model = nin_jax.create_model(tiny, in_channels=3, preprocessing=kept)
    convert.save_safetensors(model, "a.safetensors")
    options = ("a.safetensors", "b.safetensors", "--variant", tiny, "--in-channels", 3)
    with full_disk():
        outcome = script("convert", *options)
    assert outcome == (2, "", "error: cannot write b.safetensors: No space left on device\n")
    assert os.listdir() == ["a.safetensors"]
    outcome = script("convert", *options)
    assert outcome.code == 0, outcome.err
    assert convert.read_preprocessing("b.safetensors") == kept
