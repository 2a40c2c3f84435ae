"""Joining the processes of a run, and leaving when one of them dies.

JAX's distributed service does the work.
"""

import contextlib
import os
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from nin_jax.errors import RunError, UserError, first_line, reason
from nin_jax.reading import shown
from nin_jax.runs.agreement import is_first
from nin_jax.training.config import TrainConfig

HEARTBEAT_SECONDS = 30  # a process without a heartbeat for this long counts as dead
EXIT_DELAY_SECONDS = 2.0

PEER_LOST = (
    "another process of the run is gone or cannot be reached, so this one ends too: start the "
    "run again, in any number of processes, with --resume if it had begun"
)


def join(config: TrainConfig, timeout: int = 300) -> None:
    """Join the other processes of the run, if there are any, before JAX uses a device.

    If another process dies, its connections break and `together` raises a one-line error. If JAX's
    service notices first, it aborts this process (SIGABRT) with a message of its own.

    Args:
        config: ``coordinator``, ``processes`` and ``process_index``, unless SLURM, Open MPI or
            Kubernetes provides them.
        timeout: seconds to wait for the other processes.

    Raises:
        UserError: the options contradict each other, values are missing, or the processes have
            different numbers of devices.
        RunError: the other processes could not be reached in time.
    """
    options = (config.coordinator, config.processes, config.process_index)
    if not config.distributed:
        return
    _check_options(config, timeout)
    # The preemption service would catch SIGTERM and not report it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *options, initialization_timeout=timeout, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except ValueError as error:
        raise UserError(
            f"--distributed: {str(error).rstrip('.')}: outside SLURM, Open MPI and Kubernetes give "
            "all of --coordinator HOST:PORT, --processes and --process-index"
        ) from None
    except RuntimeError as error:
        raise RunError(first_line(error)) from None
    _check_devices()


def _check_options(config: TrainConfig, timeout: int) -> None:
    count, index = config.processes, config.process_index
    if count is not None and index is not None and not index < count:
        raise UserError(f"--process-index must be below --processes, which is {count}, got {index}")
    if config.coordinator is None:
        return
    host, _, port = config.coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(
            f"--coordinator must be HOST:PORT, as 10.0.0.1:1234, got {config.coordinator!r}"
        )
    if index == 0:
        _check_port(int(port))
    elif count is not None and index is not None:
        _wait_for_coordinator(host.strip("[]"), int(port), timeout)


def _check_port(port: int) -> None:
    """Check that the port is free; JAX's service would crash on one that is in use."""
    try:
        # Listen as the service does: on IPv4 and IPv6 where both exist.
        socket.create_server(
            ("", port),
            family=socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET,
            dualstack_ipv6=socket.has_dualstack_ipv6(),
        ).close()
    except OSError as error:
        raise UserError(
            f"--coordinator: port {port} is not available on this host "
            f"({os.strerror(error.errno or 0)}): choose another one"
        ) from None


def _wait_for_coordinator(host: str, port: int, timeout: int) -> None:
    """Wait until the first process listens; JAX would abort with a stack trace after a timeout."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except UnicodeError:  # a label of the name is empty or too long
            raise UserError(f"--coordinator: {shown(host)} is not the name of a host") from None
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunError(
                    f"the first process could not be reached at {host}:{port} within {timeout} s "
                    f"({reason(error)}): start all processes, with the same --coordinator"
                ) from None
        time.sleep(0.2)


def _check_devices() -> None:
    counts = Counter(device.process_index for device in jax.devices())
    least, most = min(counts, key=lambda i: counts[i]), max(counts, key=lambda i: counts[i])
    if counts[least] != counts[most]:
        raise UserError(
            f"process {least} has {counts[least]} devices, process {most} has {counts[most]}: all "
            "processes must have the same number"
        )


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Wait for the other processes at the end; if one of them dies, end with an error.

    An unexpected error in one of several processes ends that process at once.

    Raises:
        RunError: another process is gone.
    """
    try:
        yield
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("the end of the run")
    except (UserError, RunError, KeyboardInterrupt, BrokenPipeError):
        raise  # the command line prints these and exits
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if is_lost_peer(error):
            raise RunError(f"{PEER_LOST} ({first_line(error)})") from None
        traceback.print_exc()
        leave(1)


def is_lost_peer(error: BaseException) -> bool:
    """Return whether JAX raised this error because another process cannot be reached."""
    marks = ("Gloo", "NCCL", "Connection closed", "Connection reset", "UNAVAILABLE", "ABORTED")
    kinds = (jax.errors.JaxRuntimeError, ValueError)  # ValueError for Gloo's status UNKNOWN
    text = str(error)
    return isinstance(error, kinds) and any(mark in text for mark in marks)


def leave(code: int) -> None:
    """End this process if it is one of several; otherwise return.

    A normal exit would wait for the other processes, which wait for this one. The first process
    runs the service, so it stays until the others have printed their own errors.
    """
    if not jax.distributed.is_initialized():
        return
    if is_first():
        time.sleep(EXIT_DELAY_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
