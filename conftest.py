"""What all test processes share, scripts and subprocesses included: how programs are compiled.

Most of the suite's time is compiling. The environment is set before anything imports JAX, which
reads it once.
"""

import atexit
import importlib.metadata
import os
import shutil
import tempfile

# Without LLVM's optimization and the fusion emitters a program compiles in a quarter of the time,
# and does the same operations. Tests that need a program as users compile it turn them on.
QUICK_COMPILE = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones abort: unknown flag
    QUICK_COMPILE += " --xla_cpu_use_fusion_emitters=false"

# xdist's workers inherit both variables. Two runs of the suite share the programs in a folder that
# is set before.
if "NIN_TEST_PROGRAMS" not in os.environ:
    os.environ["NIN_TEST_PROGRAMS"] = tempfile.mkdtemp(prefix="nin-programs-")
    atexit.register(shutil.rmtree, os.environ["NIN_TEST_PROGRAMS"], ignore_errors=True)
if QUICK_COMPILE not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILE}".strip()
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # two processes share a GPU
os.environ |= {
    "JAX_COMPILATION_CACHE_DIR": os.environ["NIN_TEST_PROGRAMS"],
    # With a bound on its size JAX locks the folder: nobody reads what another is writing.
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**33),
    # JAX reads the whole folder whenever it adds a program, so the quickly compiled ones stay out.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
