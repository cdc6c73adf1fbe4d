"""What a server needs, told before it is started."""

from __future__ import annotations

import importlib.util
import sys


def lacking(install: str, *modules: str) -> str:
    """Return that ``install`` must be installed for the first module that is not there, or ``""``.

    ``install`` is what pip is given. No module is imported, but for the packages it lies in.
    """
    absent = next((module for module in modules if not _is_there(module)), None)
    return f"needs {absent}: pip install {install}" if absent else ""


def _is_there(module: str) -> bool:
    if sys.modules.get(module) is not None:  # find_spec fails for kombu, which replaces itself
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it lies in
        return False
