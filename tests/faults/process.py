"""One process of a house, and the ports that houses use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from itertools import count

from tests.faults.nursery import Forked

__all__ = ["Child", "free_ports"]

_next_port = count(20_000 + os.getpid() * 37 % 8000)


def free_ports(number: int = 1) -> int:
    """The first of so many free loopback ports in a row, between 20000 and 29999."""
    while True:
        first = 20_000 + (next(_next_port) - 20_000) % (9_990 - number)
        if all(_is_free(port) for port in range(first, first + number)):
            for _ in range(number):
                next(_next_port)
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class Child:
    """One process of ours."""

    name: str
    process: subprocess.Popen[bytes] | Forked
    port: int = 0

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it, ours or its own."""
        return self.process.poll() == -signal.SIGKILL

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
