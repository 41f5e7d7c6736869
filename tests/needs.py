"""What tests need of the machine that they run on."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["folder_for_all", "missing"]


def missing(why: str) -> NoReturn:
    """A part is not there: a skip on somebody's machine, and a failure in CI."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    raise AssertionError


@contextmanager
def folder_for_all(prefix: str) -> Iterator[Path]:
    """A folder with a short path that another user may enter: what root starts runs as one. pytest's own are closed."""
    made = Path(tempfile.mkdtemp(prefix=prefix))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
