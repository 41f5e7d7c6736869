"""What the command line is given by the composition root, which it may not import: long-running processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from crmbridge.services import Services
    from crmbridge.settings import Settings

__all__ = ["Processes", "Serve"]


class Serve(Protocol):
    """The API, and unless told otherwise a worker in the same process, until SIGINT or SIGTERM."""

    def __call__(self, settings: Settings, *, with_worker: bool = True) -> Awaitable[None]: ...


@dataclass(frozen=True, kw_only=True)
class Processes:
    """``command`` starts this command line anew in a child process (the demo's parts)."""

    serve: Serve
    work: Callable[[Settings], Awaitable[None]]
    services: Callable[[Settings], AbstractAsyncContextManager[Services]]
    command: tuple[str, ...]
