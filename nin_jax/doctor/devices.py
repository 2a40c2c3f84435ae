"""Whether JAX finds the GPUs that there are, and their driver is new enough."""

from collections.abc import Mapping

from nin_jax.doctor.check import Check
from nin_jax.doctor.machine import Devices
from nin_jax.doctor.processes import Nvidia
from nin_jax.tables import UNKNOWN

DRIVERS = {12: 525, 13: 580}  # the oldest NVIDIA driver for each CUDA, by JAX's installation guide


def devices_check(
    devices: Devices, nvidia: Nvidia | None, plugin: int | None, environ: Mapping[str, str]
) -> Check:
    """Whether JAX finds the devices that there are."""
    if devices.platform is None:
        chosen = environ.get("JAX_PLATFORMS")
        advice = f"unset JAX_PLATFORMS, now {chosen}" if chosen else "install JAX anew"
        return Check("JAX", f"none: {devices.error}", "warning", advice)
    if devices.platform != "cpu" or nvidia is None or not nvidia.gpus:
        return Check("JAX", devices.name)
    hiding = _hiding(environ)
    if hiding:
        return Check("JAX", f"{devices.name}, as {hiding} asks for")
    advice = f"JAX's plugin for CUDA {plugin} failed: it says why on standard error; see cuDNN too"
    if plugin is None:
        advice = "pip install -e '.[cuda12]'"
    return Check("JAX", f"{devices.name}, though there is a GPU", "warning", advice)


def _hiding(environ: Mapping[str, str]) -> str:
    """The setting that keeps JAX off a GPU, if there is one."""
    platforms, visible = environ.get("JAX_PLATFORMS", ""), environ.get("CUDA_VISIBLE_DEVICES", "0")
    if platforms and {"cuda", "gpu"}.isdisjoint(platforms.split(",")):
        return f"JAX_PLATFORMS={platforms}"
    return f"CUDA_VISIBLE_DEVICES={visible}" if visible.strip() in ("", "-1") else ""


def driver_check(nvidia: Nvidia | None, plugin: int | None) -> Check:
    """Whether the GPUs' driver works, and is new enough for JAX's CUDA."""
    if nvidia is None:
        return Check("NVIDIA driver", UNKNOWN, "ok", "there is no nvidia-smi")
    if nvidia.error:
        advice = "install NVIDIA's driver anew; without a GPU nothing is lost"
        return Check("NVIDIA driver", f"nvidia-smi: {nvidia.error}", "warning", advice)
    if not nvidia.gpus:
        return Check("NVIDIA driver", "no GPU")
    driver, names = nvidia.gpus[0].driver, ", ".join(gpu.name for gpu in nvidia.gpus)
    major, oldest = driver.partition(".")[0], DRIVERS.get(plugin or 0, 0)
    if major.isdigit() and int(major) < oldest:
        advice = f"JAX with CUDA {plugin} needs driver {oldest} or newer"
        return Check("NVIDIA driver", f"{driver}, {names}", "warning", advice)
    return Check("NVIDIA driver", f"{driver}, {names}")
