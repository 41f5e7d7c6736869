"""The embedded PostgreSQL: a small launcher over server binaries, one private server per data folder.

The server is a direct child, listens on a unix socket in a 0700 folder only, asks for generated passwords (scram)
and keeps checksums. Who enters first owns it and stops it when leaving; others that enter meanwhile (a command line
beside ``serve``) join it. After the owner was killed, the next one adopts the server or awaits its end.
See ``docs/decisions/0003-embedded-postgres.md``.

Data folder::

    cluster/           the database cluster            passwords.json   0600
    socket/            the socket, if the path fits    postgres.log     the server's log, kept below 20 MB
    owner.lock         held by the owning process      binaries/        copied only if root's service user needs it
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self
from urllib.parse import quote

import asyncpg

from crmbridge.db import cluster as os_side
from crmbridge.db.errors import DatabaseUnavailable, EmbeddedPostgresFailed
from crmbridge.db.pool import connect
from crmbridge.db.roles import APP, OWNER, SCHEDULER, RolePasswords, create_roles, dsn_for

__all__ = ["ADMIN", "DATABASE", "EmbeddedPostgres"]

ADMIN = "crmbridge_admin"
DATABASE = "crmbridge"

_log = logging.getLogger("crmbridge.db.embedded")
_LOG_LIMIT_BYTES = 10_000_000
_POLL_SECONDS = 0.01
_PR_SET_PDEATHSIG = 1

# Modest memory, durable commits, and no statement, parameter or row value in the server's log.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": "5432",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "jit": "off",
    "max_logical_replication_workers": "0",
    "max_wal_size": "512MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


class EmbeddedPostgres:
    """One private PostgreSQL. ``async with EmbeddedPostgres(path) as pg: pg.app_dsn``.

    ``stop_with_parent`` (Linux): the kernel asks the server for a fast shutdown when our process dies in whatever
    way, so nothing is left running. It is bound to the thread that starts the server: start from one that lives as
    long as the server shall. ``durable=False`` is for throw-away test databases only.
    Raises ``EmbeddedPostgresFailed``.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        bin_dir: str | Path | None = None,
        stop_with_parent: bool = True,
        durable: bool = True,
        start_timeout_seconds: float = 60.0,
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.cluster = self.data_dir / "cluster"
        self.owned = False
        self._bin_dir = bin_dir
        self._stop_with_parent = stop_with_parent and sys.platform == "linux"
        self._durable = durable
        self._timeout = start_timeout_seconds
        self._user = os_side.ServiceUser()
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._lock: int | None = None
        self._socket: Path | None = None
        self._passwords: dict[str, str] = {}
        self._stopping = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def admin_dsn(self) -> str:
        """The superuser's address, database ``postgres``. For setting up and for backups, never for serving."""
        return self._dsn(ADMIN, "admin", "postgres")

    @property
    def owner_dsn(self) -> str:
        return self._dsn(OWNER, "owner", DATABASE)

    @property
    def app_dsn(self) -> str:
        return self._dsn(APP, "app", DATABASE)

    @property
    def scheduler_dsn(self) -> str:
        return self._dsn(SCHEDULER, "scheduler", DATABASE)

    @property
    def passwords(self) -> RolePasswords:
        """The generated passwords of the three roles."""
        return RolePasswords(*(self._passwords[key] for key in ("owner", "app", "scheduler")))

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while this object owns or has joined it."""
        return self._pid

    def _dsn(self, user: str, key: str, database: str) -> str:
        if self._socket is None:
            raise EmbeddedPostgresFailed("The embedded PostgreSQL is not started.")
        base = f"postgresql:///?host={quote(str(self._socket), safe='/')}&port=5432"
        return dsn_for(base, user=user, password=self._passwords[key], database=database)

    # -- start ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Own a new or left-over server of the data folder, or join the one that another process owns."""
        self._stopping = False
        self._user = os_side.ServiceUser.choose()
        self._prepare_folder()
        deadline = monotonic() + self._timeout
        while not self._take_lock():
            if await self._join():
                return
            if monotonic() > deadline:
                raise EmbeddedPostgresFailed(
                    f"Another process holds {self.data_dir / 'owner.lock'} but its PostgreSQL does not answer."
                )
            await asyncio.sleep(0.05)
        try:
            await self._own(deadline)
        except BaseException:
            await self.stop()
            raise

    async def _own(self, deadline: float) -> None:
        self.owned = True
        binaries = os_side.find_binaries(self._bin_dir)
        binaries = await asyncio.to_thread(os_side.readable_binaries, binaries, self.data_dir, self._user)
        self._load_passwords()
        if not (self.cluster / "PG_VERSION").exists():
            await asyncio.to_thread(self._initdb, binaries)
        self._check_version(binaries)
        if not await self._adopt(deadline):
            await self._launch_until_ready(binaries, deadline)
        await create_roles(self.admin_dsn, self.passwords, database=DATABASE)

    def _prepare_folder(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.data_dir.chmod(0o700)
        self._user.own(self.data_dir)
        if (
            self._user.uid is not None
            and self._user.run(["/bin/sh", "-c", 'cd "$0"', str(self.data_dir)]).returncode
        ):
            raise EmbeddedPostgresFailed(
                f"PostgreSQL cannot run as root, and its service user cannot enter {self.data_dir}: every folder above "
                "it must be open to that user. Choose one under /var/lib, or do not run as root."
            )

    def _take_lock(self) -> bool:
        lock = os.open(self.data_dir / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    async def _join(self) -> bool:
        server = os_side.Postmaster.read(self.cluster)
        if server is None or not server.ready or not (self.data_dir / "passwords.json").exists():
            return False
        self._load_passwords()
        self._socket, self._pid = server.socket_folder, server.pid
        # The owner prepares the roles after the server is up: only then is it ours to use.
        return await self._answers(self.app_dsn)

    async def _adopt(self, deadline: float) -> bool:
        """Take over a server whose owner died, if it stays; wait for its end if it is going down."""
        while (server := os_side.Postmaster.read(self.cluster)) is not None:
            self._socket = server.socket_folder
            if server.ready and await self._answers(self.admin_dsn):
                # A fast shutdown asked for by the owner's death refuses new connections within milliseconds.
                await asyncio.sleep(0.2)
                if await self._answers(self.admin_dsn):
                    self._pid = server.pid
                    _log.info("adopted the running PostgreSQL, pid %d", server.pid)
                    return True
            if monotonic() > deadline:
                raise EmbeddedPostgresFailed(
                    f"A PostgreSQL (pid {server.pid}) from an earlier run neither answers nor ends. "
                    f"Stop it with `kill -INT {server.pid}` and start again."
                )
            await asyncio.sleep(0.05)
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        return False

    async def _answers(self, dsn: str) -> bool:
        try:
            conn = await connect(dsn, patience_seconds=0)
        except (DatabaseUnavailable, TimeoutError, asyncpg.InterfaceError):
            return False
        except Exception as error:
            # During the first start the roles or the database are not there yet.
            _log.debug("not ready: %s", type(error).__name__)
            return False
        await conn.close()
        return True

    def _load_passwords(self) -> None:
        path = self.data_dir / "passwords.json"
        if not path.exists():
            if (self.cluster / "PG_VERSION").exists():
                raise EmbeddedPostgresFailed(f"{path} is missing although the database exists; restore it.")
            fresh = path.with_suffix(".new")
            with open(
                os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
            ) as out:
                json.dump(
                    {key: secrets.token_urlsafe(24) for key in ("admin", "owner", "app", "scheduler")}, out
                )
                out.flush()
                os.fsync(out.fileno())
            fresh.rename(path)
        self._passwords = json.loads(path.read_text(encoding="utf-8"))

    def _initdb(self, binaries: Path) -> None:
        fresh = self.data_dir / "cluster.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._user.own(fresh)
        with tempfile.NamedTemporaryFile("w", dir=self.data_dir, prefix="initial-") as secret:
            secret.write(self._passwords["admin"])
            secret.flush()
            self._user.own(Path(secret.name))
            # The builtin C.UTF-8 sorts the same on every machine: no index breaks when libc changes.
            locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
            command = [
                *(str(binaries / "initdb"), "-D", str(fresh), "-U", ADMIN, f"--pwfile={secret.name}"),
                *("--auth=scram-sha-256", "--data-checksums", "--encoding=UTF8", "--no-instructions"),
                *(locale if os_side.server_version(binaries) >= 17 else ["--locale=C"]),
                *([] if self._durable else ["--no-sync"]),
            ]
            answer = self._user.run(command, cwd=self.data_dir)
        if answer.returncode:
            last = answer.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise EmbeddedPostgresFailed(f"initdb failed: {' '.join(last)}")
        fresh.rename(self.cluster)

    def _check_version(self, binaries: Path) -> None:
        has = int((self.cluster / "PG_VERSION").read_text(encoding="utf-8"))
        offers = os_side.server_version(binaries)
        if has != offers:
            raise EmbeddedPostgresFailed(
                f"The data folder was made by PostgreSQL {has}, the binaries are PostgreSQL {offers}: "
                f"use binaries of version {has} (CRMBRIDGE_PG_BINDIR) to dump it and load it into a new data folder."
            )

    async def _launch_until_ready(self, binaries: Path, deadline: float) -> None:
        """Start the server; try again while workers of a killed predecessor still hold its shared memory."""
        while True:
            self._launch(binaries)
            while self._process is not None and self._process.poll() is None:
                server = os_side.Postmaster.read(self.cluster)
                if server is not None and server.pid == self._process.pid and server.ready:
                    self._pid = server.pid
                    return
                if monotonic() > deadline:
                    raise EmbeddedPostgresFailed(f"PostgreSQL was not ready in time.{self._log_tail()}")
                await asyncio.sleep(_POLL_SECONDS)
            if monotonic() > deadline or "shared memory block" not in self._log_tail():
                raise EmbeddedPostgresFailed(f"PostgreSQL ended while starting.{self._log_tail()}")
            await asyncio.sleep(0.3)

    def _launch(self, binaries: Path) -> None:
        self._socket = os_side.socket_folder(self.data_dir, self._user)
        settings = {**_SETTINGS, "unix_socket_directories": str(self._socket)}
        if os_side.server_version(binaries) >= 18:
            settings["io_method"] = "sync"  # three worker processes less
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        command = [str(binaries / "postgres"), "-D", str(self.cluster)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = self.data_dir / "postgres.log"
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
            self._process = subprocess.Popen(  # type: ignore[call-overload]  # noqa: S603
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os_side.environment(),
                start_new_session=True,  # Ctrl-C at the terminal is for us: we drain first, then stop the server
                preexec_fn=_death_signal(os.getpid()) if self._stop_with_parent else None,
                **self._user.popen_options(),
            )

    def _log_tail(self) -> str:
        try:
            lines = (self.data_dir / "postgres.log").read_text("utf-8", "replace").splitlines()[-3:]
        except OSError:
            return ""
        return " Its log ends: " + " / ".join(line[:300] for line in lines)

    # -- run and stop --------------------------------------------------------------------------------------------

    def alive(self) -> bool:
        """Whether the postmaster runs."""
        if self._process is not None:
            return self._process.poll() is None
        server = os_side.Postmaster.read(self.cluster)
        return server is not None and server.pid == self._pid

    async def supervise(self) -> None:
        """Start the server again whenever it ends by itself. Runs until cancelled or until ``stop``."""
        pause = 0.1
        while not self._stopping and self.owned:
            await asyncio.sleep(pause if not self.alive() else 0.25)
            if self.alive() or self._stopping:
                continue
            _log.error("PostgreSQL ended unexpectedly; starting it again")
            try:
                self._process = None
                binaries = os_side.find_binaries(self._bin_dir)
                binaries = await asyncio.to_thread(
                    os_side.readable_binaries, binaries, self.data_dir, self._user
                )
                await self._launch_until_ready(binaries, monotonic() + self._timeout)
                pause = 0.1
            except EmbeddedPostgresFailed as error:
                _log.error("%s", error.message)
                pause = min(pause * 2, 5.0)

    async def stop(self) -> None:
        """Stop the server if we own it (fast shutdown; immediate after 30 s), leave it alone if we joined it."""
        self._stopping = True
        if self.owned and self._pid is None and self._process is not None:
            self._pid = self._process.pid
        if self.owned and self._pid is not None:
            for number, patience in ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0)):
                if not self.alive():
                    break
                os.kill(self._pid, number)
                deadline = monotonic() + patience
                while self.alive() and monotonic() < deadline:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)
        self._process = self._pid = self._socket = None
        self.owned = False
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _death_signal(parent: int) -> Callable[[], None]:
    """Return what the child runs before it becomes postgres: fast shutdown when the parent dies.

    It is set after the change of user, which clears it.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    wanted = int(signal.SIGINT)

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, wanted, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arm
