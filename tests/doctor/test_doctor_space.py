"""The doctor on memory and disk: what is free, and what a run needs."""

import os

from nin_jax.doctor import machine, space
from nin_jax.doctor.processes import Gpu, Nvidia
from tests.support.doctor_fakes import GPU, ONE_GPU, is_ok, warns


def test_memory_and_disk_that_suffice(tmp_path):
    assert is_ok(space.memory_check(2**30, 2**30), "1.0 GiB free", "about 1.0 GiB")
    assert is_ok(space.memory_check(None, 2**30), "not available free")
    assert is_ok(space.gpu_memory_check(ONE_GPU, 2**30), "70.0 GiB free of 80.0 GiB")
    assert is_ok(space.gpu_memory_check(None, 2**30), "not available")
    unknown = Nvidia((Gpu("GB10", "580", None, None),))
    assert is_ok(space.gpu_memory_check(unknown, 2**30), "not available free")
    assert is_ok(space.disk_check(tmp_path, 2**30, 2**20), "1.0 GiB free", "1.0 MiB")
    assert is_ok(space.disk_check(tmp_path, None, 2**20), "not available free")


def test_memory_and_disk_that_do_not(tmp_path, monkeypatch):
    assert warns(space.memory_check(2**29, 2**30), "512.0 MiB free", "smaller batch")
    assert warns(space.memory_check(0, 1), "0.0 MiB free")
    small = Nvidia((Gpu("H100", "580", 2**20, 2**30), GPU))
    assert warns(space.gpu_memory_check(small, 2**21), "1.0 MiB free", "--micro-batch-size")
    assert warns(space.disk_check(tmp_path, 0, 1), "0.0 MiB free", "make room")
    file = tmp_path / "file"
    file.write_text("")
    assert warns(space.disk_check(file, 2**30, 1), "is a file", "another folder")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert warns(space.disk_check(tmp_path, 2**30, 1), "not writable", "another folder")


def test_memory_and_disk_are_read(tmp_path):
    path = tmp_path / "meminfo"
    assert machine.read_available_memory(path) is None
    path.write_text("MemTotal: 9 kB\nMemFree: 5 kB\nMemAvailable:   7 kB\n")
    assert machine.read_available_memory(path) == 7 * 1024
    path.write_text("MemTotal: 9 kB\n")
    assert machine.read_available_memory(path) is None
    there = machine.read_free_disk(tmp_path)
    assert there is not None
    assert there > 0
    assert machine.read_free_disk(tmp_path / "not" / "yet") is not None


def test_what_a_run_needs(monkeypatch):
    params = 4 * 2_225_510  # nin15's, in float32
    # The momentum of every parameter, and one more moment of each bias.
    assert 4 * 2 * params < space.checkpoint_bytes() < 4 * 2.01 * params
    at_once = space.step_memory().total_bytes
    assert 2.5 * 2**30 < at_once < 3.5 * 2**30
    assert 3 * params < space.step_bytes() < 0.1 * at_once  # a CPU works in parts

    def fail(_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(space, "default_micro_batch_size", fail)
    assert space.step_bytes() == at_once
