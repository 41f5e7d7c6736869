"""What a machine may or may not have for these tests: a small disk, a clock that jumps."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["DATABASE_CLOCK", "faketime", "find_faketime", "small_disk"]

_FAKETIME = "libfaketimeMT.so.1"
# The file, in a house's folder, that moves its PostgreSQL's clock: "+3h", say.
DATABASE_CLOCK = "postgres.clock"


def find_faketime() -> str | None:
    """The library that moves a process's clock, as Debian's package ``faketime`` installs it."""
    found = sorted(Path("/usr/lib").glob(f"*/faketime/{_FAKETIME}"))
    return str(found[0]) if found else None


def faketime(library: str, clock: Path) -> dict[str, str]:
    """The environment of a process that reads its time through this file, each time anew."""
    clock.write_text("+0")
    clock.chmod(0o644)
    return {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path | None]:
    """A folder on a tmpfs of this size, or None where it cannot be mounted."""
    mount = shutil.which("mount")
    folder = Path(tempfile.mkdtemp(prefix="crmb-disk-"))
    folder.chmod(0o755)
    command = [str(mount), "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)]
    is_mounted = (
        mount is not None
        and os.geteuid() == 0
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )
    try:
        yield folder if is_mounted else None
    finally:
        if is_mounted:
            # Lazily: a process that is about to end may still stand in it.
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)
