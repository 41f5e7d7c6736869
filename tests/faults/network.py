"""Hosts made of network namespaces: a switch, a cable to each, addresses that exist nowhere else. Root and ``ip``.

No host has a route out: what runs in one reaches the others and nothing more. The calling thread stands at the switch
while the network is there, and so does what it starts, unless it is started in a host.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import re
import shutil
import struct
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["HOST_VARIABLE", "Network", "enter", "laid", "why_no_network"]

# Names the namespace that a forked process enters before anything else; see ``child.main``.
HOST_VARIABLE = "CRMBRIDGE_TEST_HOST"
_RUN = Path("/run/netns")
_NET = "10.203.119"
_SWITCH = f"{_NET}.1"
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_NAME = re.compile(r"crmb([0-9]+)-[a-z0-9]+")


def why_no_network() -> str:
    """What this machine lacks, or an empty text."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "ip is not on this machine (Debian: apt-get install iproute2)"
    probe = f"crmb{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"this kernel or container makes no network namespaces: {made.stderr.strip()}"
    _ip("netns", "del", probe)
    return ""


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout


def enter(path: str | Path) -> None:
    """Let the calling thread, and what it starts from now on, stand in this namespace."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(descriptor)


class Network:
    """``addresses``: host name → address. Every host's cable ends at the switch."""

    def __init__(self, names: Mapping[str, int]) -> None:
        self._word = f"crmb{os.getpid()}"
        self.hub = f"{self._word}-hub"
        self.addresses = {name: f"{_NET}.{last}" for name, last in names.items()}
        self._delays: list[_Delay] = []

    def namespace(self, host: str) -> Path:
        """Where the kernel names this host's namespace."""
        return _RUN / f"{self._word}-{host}"

    def lay(self) -> None:
        """Switch, hosts and cables."""
        _ip("netns", "add", self.hub)
        _ip("-n", self.hub, "link", "set", "lo", "up")
        _ip("-n", self.hub, "link", "add", "switch", "type", "bridge")
        _ip("-n", self.hub, "addr", "add", f"{_SWITCH}/24", "dev", "switch")
        _ip("-n", self.hub, "link", "set", "switch", "up")
        for host in self.addresses:
            space = self.namespace(host).name
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
            peer = ("peer", "name", "eth0", "netns", space)
            _ip("-n", self.hub, "link", "add", f"to-{host}", "type", "veth", *peer)
            self._connect(host, "eth0")

    def _connect(self, host: str, device: str) -> None:
        space = self.namespace(host).name
        _ip("-n", self.hub, "link", "set", f"to-{host}", "master", "switch", "up")
        _ip("-n", space, "addr", "add", f"{self.addresses[host]}/24", "dev", device)
        _ip("-n", space, "link", "set", device, "up")

    @contextmanager
    def at(self, host: str) -> Iterator[None]:
        """What the calling thread starts in this block runs on that host. Do not await in it."""
        enter(self.namespace(host))
        try:
            yield
        finally:
            enter(_RUN / self.hub)

    def unplug(self, host: str) -> None:
        """Pull the cable: nothing arrives and nobody is told, as no process ends."""
        _ip("-n", self.hub, "link", "set", f"to-{host}", "down")

    def plug(self, host: str) -> None:
        """Put it back."""
        _ip("-n", self.hub, "link", "set", f"to-{host}", "up")

    def slow(self, host: str, seconds: float) -> str:
        """A cable on which every frame takes so long each way; answers what made it so, or an empty text.

        By netem where the kernel has it; else the cable is replaced by one that this process carries frames over.
        """
        with self.at(host):
            done = subprocess.run(
                [
                    "tc",
                    "qdisc",
                    "add",
                    "dev",
                    "eth0",
                    "root",
                    "netem",
                    "delay",
                    f"{seconds * 2 * 1000:.0f}ms",
                ],
                capture_output=True,
                check=False,
            )  # one end delays both: what goes out there, twice
        if done.returncode == 0:
            return "netem"
        if not Path("/dev/net/tun").exists():
            return ""
        space = self.namespace(host).name
        _ip("-n", self.hub, "link", "del", f"to-{host}")
        near = _tap(f"to-{host}")
        with self.at(host):
            far = _tap("eth1")
        self._connect(host, "eth1")
        self._delays += [_Delay(near, far, seconds), _Delay(far, near, seconds)]
        _ip("-n", space, "link", "set", "eth1", "mtu", "1500")
        return "a cable in user space"

    def close(self) -> None:
        """Take everything away; what is missing already does no harm."""
        for delay in self._delays:
            delay.close()
        for path in _RUN.glob(f"{self._word}-*"):
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True, check=False)


def _tap(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


class _Delay:
    """Carries frames from one end to the other, each after so many seconds, in order."""

    def __init__(self, source: int, sink: int, seconds: float) -> None:
        self._source, self._sink, self._seconds = source, sink, seconds
        self._frames: deque[bytes] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(source, self._read)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._frames.append(os.read(self._source, 65_536))
                self._loop.call_later(self._seconds, self._write)

    def _write(self) -> None:
        if self._frames:
            with suppress(OSError):  # a full queue drops a frame, as a cable may
                os.write(self._sink, self._frames.popleft())

    def close(self) -> None:
        self._loop.remove_reader(self._source)
        self._frames.clear()
        with suppress(OSError):
            os.close(self._source)


def _sweep() -> None:
    """Namespaces of runs that were killed."""
    for path in _RUN.glob("crmb*-*") if _RUN.is_dir() else ():
        found = _NAME.fullmatch(path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True, check=False)


@contextmanager
def laid(names: Mapping[str, int]) -> Iterator[Network]:
    """A network of these hosts, name → last part of the address; gone afterwards, also after a failure."""
    _sweep()
    network = Network(names)
    home = f"/proc/self/task/{os.getpid()}/ns/net"
    stay = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
    try:
        network.lay()
        enter(_RUN / network.hub)
        yield network
    finally:
        enter(f"/proc/self/fd/{stay}")
        os.close(stay)
        network.close()
