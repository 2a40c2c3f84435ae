"""The layout: folders and files import only what stands above them, and nothing private."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("nin_jax", "nin_torch_ref", "benchmarks", "scripts")
SOURCES = [path for folder in OURS for path in sorted((ROOT / folder).rglob("*.py"))]
MODULES = sorted((ROOT / "nin_jax").rglob("[!_]*.py"))


def test_imports_follow_the_contracts_in_pyproject():
    """In a process of its own: the linter keeps the standard output that it first meets."""
    code = "import importlinter.cli as it; raise SystemExit(it.lint_imports(no_cache=True))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_of_another_file_is_used(path):
    bound = set()  # names in this file that stand for one of our modules, or come from one
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            assert not [name for name in names if name.startswith("_")], ast.unparse(node)
            bound |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            private = node.attr.startswith("_") and not node.attr.endswith("__")
            assert not (private and node.value.id in bound), ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_reached_through_a_package(path):
    """Our own modules import a name from where it is defined; users may take it from nin_jax."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert "nin_jax" not in [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nin_jax"):
            package = ROOT / Path(*(node.module or "").split("."))
            if package.is_dir():
                submodules = {found.stem for found in package.glob("*")}
                assert {alias.name for alias in node.names} <= submodules, ast.unparse(node)
