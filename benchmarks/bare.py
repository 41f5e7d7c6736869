"""The floor of the accept: a bare handler of the same framework, one group-committed insert of the same body."""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import uvicorn
from litestar import Litestar, post

_TABLE = """
create table if not exists bare_writes (id uuid primary key, body jsonb not null, at timestamptz default now())
"""
_INSERT = "insert into bare_writes (id, body) select * from unnest($1::uuid[], $2::jsonb[])"


class Body(msgspec.Struct):
    """The body of the record API, as far as the load sends it."""

    fields: dict[str, Any]
    idempotency_key: str = ""


class Flusher:
    """Group commit: what came while the last flush ran goes into the next one."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._waiting: list[tuple[UUID, str, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, body: Body) -> UUID:
        """Durable when it returns."""
        write_id, future = uuid4(), asyncio.get_running_loop().create_future()
        self._waiting.append((write_id, msgspec.json.encode(body).decode(), future))
        if self._task is None:
            self._task = asyncio.create_task(self._flush())
        await future
        return write_id

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:500], self._waiting[500:]
            await self._pool.execute(_INSERT, [row[0] for row in batch], [row[1] for row in batch])
            for _, _, future in batch:
                future.set_result(None)
        self._task = None


def main() -> None:
    """``python -m benchmarks.bare DSN PORT``."""
    dsn, port = sys.argv[1], int(sys.argv[2])

    async def run() -> None:
        pool = await asyncpg.create_pool(dsn, min_size=2, max_size=4)
        await pool.execute(_TABLE)
        flusher = Flusher(pool)

        @post("/bare", status_code=202)
        async def bare(data: Body) -> dict[str, str]:
            return {"write_id": str(await flusher.add(data))}

        app = Litestar([bare], openapi_config=None, logging_config=None)
        config = uvicorn.Config(
            app, host="127.0.0.1", port=port, log_config=None, access_log=False, lifespan="off"
        )
        await uvicorn.Server(config).serve()

    import uvloop

    uvloop.run(run())


if __name__ == "__main__":
    main()
