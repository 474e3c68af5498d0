"""Builds the compiled UDP loop, for its tests and benchmarks."""

import importlib.machinery
import importlib.util
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).resolve().parents[2] / "dns" / "fast" / "fairlead_dns_fast.c"


def build(folder: Path) -> Path:
    """The module's file, in a folder that may stand on PYTHONPATH."""
    made = folder / f"fairlead_dns_fast{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = f"-I{sysconfig.get_path('include')}"
    warn = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Wstrict-prototypes", "-Werror"]
    command = ["cc", "-O2", *warn, "-shared", "-fPIC", include, str(SOURCE), "-o", str(made)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return made


def load(file: Path) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader("fairlead_dns_fast", str(file))
    spec = importlib.util.spec_from_loader("fairlead_dns_fast", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
