"""Rules of sign-in without any I/O: passwords, pauses after failures, the length of sessions, busy addresses.

The windows and what was weighed: ``docs/decisions/0010-operators-and-sessions.md``.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from itertools import pairwise
from time import monotonic

__all__ = [
    "IDLE_SECONDS",
    "SESSION_SECONDS",
    "Throttle",
    "new_password",
    "normal_email",
    "password_problems",
    "pause_after",
]

# A session ends 12 hours after its sign-in, whatever happens, and after 60 minutes without a page.
SESSION_SECONDS = 12 * 3600
IDLE_SECONDS = 60 * 60

FREE_FAILURES = 5
FIRST_PAUSE_SECONDS = 30
LONGEST_PAUSE_SECONDS = 15 * 60

LEAST_CHARACTERS = 12
MOST_CHARACTERS = 200
LEAST_DIFFERENT = 5

# Tries of one network address in this process: a burst, then one each few seconds.
ADDRESS_BURST = 20
ADDRESS_SECONDS = 15.0
_MOST_ADDRESSES = 10_000

# Long enough for the length rule and still among the first that are tried.
_OFTEN_USED = frozenset(
    {
        "password1234", "passwordpassword", "password12345", "passw0rd1234", "qwertyuiop12", "qwertyuiop123",
        "qwerty123456", "letmein12345", "welcome12345", "administrator", "administrator1", "changeme1234",
        "changemechangeme", "iloveyou1234", "correcthorsebatterystaple", "abcdefghijkl", "abcdef123456",
    }
)  # fmt: skip
_EMAIL = re.compile(r"[^@\s<>\"]{1,64}@[^@\s<>\"]{1,130}")


def normal_email(text: str) -> str:
    """Trimmed and in lower case; empty when it is no e-mail address."""
    email = text.strip().lower()
    return email if _EMAIL.fullmatch(email) and email.isprintable() else ""


def password_problems(password: str, *, email: str = "", name: str = "") -> list[str]:
    """What is wrong with a new password; empty when it may be used. Length counts, kinds of characters do not."""
    problems = []
    if len(password) < LEAST_CHARACTERS:
        problems.append(f"must have at least {LEAST_CHARACTERS} characters")
    if len(password) > MOST_CHARACTERS:
        problems.append(f"must have at most {MOST_CHARACTERS} characters")
    lowered = password.lower()
    if lowered in _OFTEN_USED or len(set(lowered)) < LEAST_DIFFERENT or _is_a_run(lowered):
        problems.append("is one of those that are tried first")
    own = [part for part in (email.partition("@")[0].lower(), name.lower()) if len(part) >= 4]
    if any(part in lowered for part in own):
        problems.append("must not hold your name or e-mail address")
    if any(ord(character) < 32 for character in password):
        problems.append("must not hold control characters")
    return problems


def _is_a_run(text: str) -> bool:
    steps = {ord(after) - ord(before) for before, after in pairwise(text)}
    return len(text) > 1 and len(steps) == 1


def new_password() -> str:
    """A generated password: 120 random bits, in groups that can be read out."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    drawn = [secrets.choice(letters) for _ in range(24)]
    return "-".join("".join(drawn[start : start + 6]) for start in range(0, 24, 6))


def pause_after(failures: int) -> int:
    """Seconds until the next try after so many failures in a row: 0 up to four, then 30, 60, 120 … 900."""
    over = failures - FREE_FAILURES
    if over < 0:
        return 0
    pause: int = FIRST_PAUSE_SECONDS * 2 ** min(over, 10)
    return min(pause, LONGEST_PAUSE_SECONDS)


class Throttle:
    """How often one network address may try: ``burst`` at once, then one each ``seconds``; per process, bounded."""

    def __init__(
        self,
        burst: int = ADDRESS_BURST,
        seconds: float = ADDRESS_SECONDS,
        *,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._burst = burst
        self._seconds = seconds
        self._now = now
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> float:
        """Count one try. 0 when it may go on, else the seconds to wait; then it is not counted."""
        key, now = _network(address), self._now()
        spent, at = self._spent.pop(key, (0.0, now))
        spent = max(0.0, spent - (now - at) / self._seconds)
        may = spent + 1 <= self._burst
        self._spent[key] = (spent + 1 if may else spent, now)
        while len(self._spent) > _MOST_ADDRESSES:
            self._spent.popitem(last=False)
        return 0.0 if may else (spent + 1 - self._burst) * self._seconds

    def give_back(self, address: str) -> None:
        """The try was a good one."""
        key = _network(address)
        if key in self._spent:
            spent, at = self._spent[key]
            self._spent[key] = (max(0.0, spent - 1), at)


def _network(address: str) -> str:
    """A whole /64 counts as one: one person holds as many IPv6 addresses as he likes."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return f"{int(parsed) >> 64:016x}::/64"
    return str(parsed)
