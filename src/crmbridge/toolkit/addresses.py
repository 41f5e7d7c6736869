"""Which addresses a call may reach: the pure half of the SSRF guard. No I/O.

The lists follow the IANA special-purpose address registries (RFC 6890 and its updates):
https://www.iana.org/assignments/iana-ipv4-special-registry,
https://www.iana.org/assignments/iana-ipv6-special-registry; NAT64 is RFC 6052, 6to4 RFC 7526, Teredo
RFC 4380. The metadata addresses are those that the cloud vendors publish.

Two questions are asked of every call: :func:`check_url` before a name is looked up (cheap, also used when an
operator fills in a form) and :meth:`EgressPolicy.refusal` for the address that is really dialled, which is
what defeats a name that answers differently the second time.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

from crmbridge.core.errors import EgressRefused

__all__ = ["EgressPolicy", "Endpoint", "check_url"]

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

MAX_URL_LENGTH = 16_384
MAX_PASSED = 4_096

# What an allow-listed host name may resolve to although it is not public.
_INSIDE: tuple[tuple[_Network, str], ...] = (
    (ip_network("10.0.0.0/8"), "private"),
    (ip_network("172.16.0.0/12"), "private"),
    (ip_network("192.168.0.0/16"), "private"),
    (ip_network("127.0.0.0/8"), "loopback"),
    (ip_network("100.64.0.0/10"), "carrier-grade NAT"),
    (ip_network("::1/128"), "loopback"),
    (ip_network("fc00::/7"), "unique local"),
)

# Only a CIDR or a literal address in the allow-list opens these, never a name.
_METADATA: tuple[tuple[_Network, str], ...] = (
    (ip_network("169.254.169.254/32"), "a cloud metadata service"),
    (ip_network("169.254.170.2/32"), "a cloud metadata service"),
    (ip_network("100.100.100.200/32"), "a cloud metadata service"),
    (ip_network("168.63.129.16/32"), "a cloud metadata service"),
    (ip_network("192.0.0.192/32"), "a cloud metadata service"),
    (ip_network("fd00:ec2::/32"), "a cloud metadata service"),
    (ip_network("fd20:ce::254/128"), "a cloud metadata service"),
)
_NEVER: tuple[tuple[_Network, str], ...] = (
    (ip_network("0.0.0.0/8"), "unspecified"),
    (ip_network("169.254.0.0/16"), "link-local"),
    (ip_network("192.0.0.0/24"), "reserved"),
    (ip_network("192.0.2.0/24"), "reserved for documentation"),
    (ip_network("192.88.99.0/24"), "a 6to4 relay"),
    (ip_network("198.18.0.0/15"), "reserved for benchmarks"),
    (ip_network("198.51.100.0/24"), "reserved for documentation"),
    (ip_network("203.0.113.0/24"), "reserved for documentation"),
    (ip_network("224.0.0.0/4"), "multicast"),
    (ip_network("240.0.0.0/4"), "reserved"),
    (ip_network("::/96"), "unspecified or IPv4-compatible"),
    (ip_network("64:ff9b:1::/48"), "local NAT64"),
    (ip_network("2001::/23"), "Teredo or reserved"),
    (ip_network("2001:db8::/32"), "reserved for documentation"),
    (ip_network("2002::/16"), "6to4"),
    (ip_network("3fff::/20"), "reserved for documentation"),
    (ip_network("fe80::/10"), "link-local"),
    (ip_network("fec0::/10"), "site-local"),
    (ip_network("ff00::/8"), "multicast"),
)
_GLOBAL_V6 = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")

_HOST = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_NUMBER_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
# Scheme and authority (RFC 3986 section 3.2): what comes after cannot change where a URL points.
_ORIGIN = re.compile(r"[^/?#]*(?://[^/?#]*)?")


class Endpoint(NamedTuple):
    """Where a URL points: lower-case host without brackets, and the port (the scheme's own by default)."""

    scheme: str
    host: str
    port: int


class EgressPolicy:
    """The operator's allow-list over the fixed rules.

    ``allow`` entries: ``host`` (every port), ``host:port``, an IP address (``[::1]:8080`` for IPv6 with a
    port), or a CIDR. A name opens plain http and the private, loopback and carrier-grade addresses it
    resolves to at dial time, but never link-local or metadata addresses: those need the address itself or
    its CIDR. Raises ValueError naming an entry that cannot be read.
    """

    __slots__ = ("_hosts", "_networks", "_passed", "allow")

    def __init__(self, allow: tuple[str, ...] = ()) -> None:
        self.allow = tuple(allow)
        self._hosts: dict[str, set[int | None]] = {}
        self._networks: list[tuple[_Network, int | None]] = []
        self._passed: dict[str, Endpoint] = {}
        for entry in self.allow:
            self._read(entry.strip())

    def _read(self, entry: str) -> None:
        if "/" in entry and "://" not in entry:
            try:
                self._networks.append((ip_network(entry, strict=False), None))
            except ValueError:
                raise ValueError(f"egress allow-list: {entry!r} is not a CIDR such as 10.0.0.0/8") from None
            return
        host, port = _split_port(entry)
        address = _literal(host)
        if address is not None:
            self._networks.append((ip_network(address), port))
        elif _HOST.fullmatch(host) and not _looks_numeric(host):
            self._hosts.setdefault(host, set()).add(port)
        else:
            raise ValueError(
                f"egress allow-list: {entry!r} is none of host, host:port, IP address, CIDR; "
                "leave out the scheme and the path"
            )

    def allows_name(self, host: str, port: int) -> bool:
        """Whether this host name (not an address) is on the allow-list for this port."""
        ports = self._hosts.get(host)
        return ports is not None and (None in ports or port in ports)

    def allows_address(self, address: _Address, port: int) -> bool:
        """Whether an address is inside a listed CIDR or equals a listed address, for this port."""
        return any(
            address.version == network.version and address in network and listed in (None, port)
            for network, listed in self._networks
        )

    def passed(self, origin: str) -> Endpoint | None:
        """Where a scheme and host as written point, if they were found good before; the rules never change."""
        return self._passed.get(origin)

    def note_passed(self, origin: str, endpoint: Endpoint) -> None:
        """Remembers a good origin of a usual length, :data:`MAX_PASSED` of them at most."""
        if len(origin) > 300:
            return
        if len(self._passed) >= MAX_PASSED:
            self._passed.clear()
        self._passed[origin] = endpoint

    def refusal(self, address: str, *, host: str, port: int) -> str:
        """Why this address may not be dialled for this host, as a short phrase; empty when it may."""
        try:
            dialled: _Address = ip_address(address.partition("%")[0])
        except ValueError:
            return "not an IP address"
        if self.allows_address(dialled, port):
            return ""
        unwrapped = _unwrap(dialled)
        if unwrapped is not dialled and self.allows_address(unwrapped, port):
            return ""
        if why := _find(unwrapped, _METADATA):
            return why
        if why := _find(unwrapped, _INSIDE):
            return "" if self.allows_name(host, port) else why
        if why := _find(unwrapped, _NEVER):
            return why
        if isinstance(unwrapped, IPv6Address) and unwrapped not in _GLOBAL_V6:
            return "reserved"
        return ""


def check_url(url: str, policy: EgressPolicy) -> Endpoint:
    """Checks a URL before any name is looked up; also for forms. Answers where it points.

    Raises EgressRefused for a scheme other than http(s), user information, a missing or oddly written host
    (``127.1``, ``0x7f000001``, ``2130706433``), a literal address that may not be dialled, and plain http to
    a host that is not on the allow-list.
    """
    if len(url) > MAX_URL_LENGTH:
        raise EgressRefused(f"The URL is longer than {MAX_URL_LENGTH} characters.")
    if _UNSAFE.search(url):
        raise EgressRefused("The URL holds a space, a backslash or a control character; encode it.")
    origin = _ORIGIN.match(url)[0]  # type: ignore[index]
    endpoint = policy.passed(origin)
    if endpoint is None:
        endpoint = _endpoint(origin)
        _check_host(endpoint, policy)
        policy.note_passed(origin, endpoint)
    return endpoint


def _endpoint(origin: str) -> Endpoint:
    try:
        parts = urlsplit(origin)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise EgressRefused("The URL cannot be read; check the host and the port.") from None
    scheme = parts.scheme
    if scheme not in ("https", "http"):
        raise EgressRefused("The URL must begin with https://.")
    if "@" in parts.netloc:
        raise EgressRefused("The URL holds a user name or password; use the credential fields.")
    host = host.rstrip(".")
    if not host:
        raise EgressRefused("The URL has no host.")
    if port == 0:
        raise EgressRefused("Port 0 cannot be called.")
    return Endpoint(scheme, host, port or (443 if scheme == "https" else 80))


def _check_host(endpoint: Endpoint, policy: EgressPolicy) -> None:
    _, host, port = endpoint
    address = _literal(host)
    if address is not None:
        why = policy.refusal(host, host=host, port=port)
        is_listed = policy.allows_address(address, port) or policy.allows_address(_unwrap(address), port)
    else:
        if not host.isascii():
            raise EgressRefused("The host holds letters outside ASCII; write its xn-- form.")
        if not _HOST.fullmatch(host):
            raise EgressRefused("The host of the URL is not a valid name.")
        is_listed = policy.allows_name(host, port)
        why = ""
        if _looks_numeric(host):
            why = "an address in an odd notation"
        elif (host == "localhost" or host.endswith(".localhost")) and not is_listed:
            why = "loopback"
    if why:
        raise EgressRefused(f"The address {host} is {why}; calls to it are refused.")
    if endpoint.scheme == "http" and not is_listed:
        raise EgressRefused(f"Plain http to {host} is refused; use https://.")


def _split_port(entry: str) -> tuple[str, int | None]:
    text = entry.lower()
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
    elif text.count(":") > 1:
        return text, None
    else:
        host, colon, digits = text.partition(":")
        rest = colon + digits
    if not rest:
        return host.rstrip("."), None
    digits = rest[1:]
    if rest[0] != ":" or not (digits.isascii() and digits.isdigit()) or not 0 < int(digits[:6]) < 65536:
        raise ValueError(f"egress allow-list: the port of {entry!r} is not a number from 1 to 65535")
    return host.rstrip("."), int(digits)


def _literal(host: str) -> _Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _looks_numeric(host: str) -> bool:
    """True for what inet_aton reads as an address although it is not four decimal numbers."""
    return _NUMBER_LABEL.fullmatch(host.rpartition(".")[2]) is not None


def _unwrap(address: _Address) -> _Address:
    """The IPv4 address inside a v4-mapped or NAT64 address; other addresses as they are."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _find(address: _Address, table: tuple[tuple[_Network, str], ...]) -> str:
    for network, why in table:
        if network.version == address.version and address in network:
            return why
    return ""
