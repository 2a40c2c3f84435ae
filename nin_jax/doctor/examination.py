"""The examination: every fact is read once, and every check made on it, by topic."""

import os
from pathlib import Path

from nin_jax.doctor import data_sets, machine, packages, processes, settings, software, space
from nin_jax.doctor.check import Findings
from nin_jax.doctor.devices import devices_check, driver_check


def examine(data_dir: Path | None, run_folder: Path) -> Findings:
    """Everything there is to say about this machine, by topic.

    Args:
        data_dir: as for `load_dataset`.
        run_folder: where runs are to be written; it need not be there.
    """
    environ, version_of = dict(os.environ), packages.installed_version
    nvidia = processes.read_nvidia()  # before JAX takes memory of its own
    devices, torch = machine.read_devices(), processes.read_torch()
    plugin, on_gpu = packages.read_plugin(version_of), devices.platform == "gpu"
    precision = machine.jax_setting("jax_default_matmul_precision")
    needed = space.PROCESS_BYTES + (0 if on_gpu else space.step_bytes())
    return {
        "versions": [
            *software.version_checks(software.read_bounds(plugin), version_of),
            software.torch_check(torch, software.torch_bound()),
        ],
        "devices": [devices_check(devices, nvidia, plugin, environ), driver_check(nvidia, plugin)],
        "CUDA": software.cuda_checks(
            packages.jax_libraries(plugin, version_of), processes.torch_libraries(torch)
        ),
        "preallocation": [settings.preallocation_check(environ, on_gpu, torch)],
        "precision": settings.precision_checks(precision, environ, on_gpu, torch),
        "compilation cache": [settings.cache_check(*machine.read_cache())],
        "data": data_sets.data_checks(data_dir),
        "memory and disk": [
            space.memory_check(machine.read_available_memory(), needed),
            space.gpu_memory_check(nvidia, space.step_memory().total_bytes),
            space.disk_check(
                run_folder, machine.read_free_disk(run_folder), space.checkpoint_bytes()
            ),
        ],
    }
