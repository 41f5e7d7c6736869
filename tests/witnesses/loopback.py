"""Loopback: an emulator behind its vendor's own host names, so that the vendor's client runs against it unmodified.

::

    client ──CONNECT api.vendor.com:443──> proxy ──> TLS front ──> emulator
                                          (hosts)    (test authority)

A client whose host can be set takes ``Stage.url``; one whose host is fixed takes ``Stage.proxy_url`` and
``Stage.ca_file`` by its public settings, or :meth:`Stage.environment`. The proxy knows the vendor's hosts and no
others, so a client that calls elsewhere is refused and ``Stage.refused`` names the place.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from crmbridge.core.driver import Access, CrmDriver
from crmbridge.core.secret import Secret
from crmbridge.emulation import Emulator, InProcessTransport
from crmbridge.emulation.serve import serve_emulators

__all__ = ["Authority", "Stage", "access_to", "connected", "needed", "staged"]

PORTS = range(26_000, 29_000)
T = TypeVar("T")
Serving = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def access_to(emulator: Any, **settings: str) -> Access:
    """What our driver is given for an emulator, before any test or preparation."""
    return Access(
        settings={**emulator.settings(), **settings},
        secrets={name: Secret(text) for name, text in emulator.secrets().items()},
        transport=InProcessTransport(emulator),
        mark_prefix="t1",
    )


async def connected(kind: type[CrmDriver], emulator: Any) -> CrmDriver:
    """Our driver as a connection has it: tested and prepared."""
    access = access_to(emulator)
    access.facts.update((await kind(access).test_connection()).facts)
    access.facts.update(await kind(access).prepare())
    return kind(access)


def needed(module: str, requirement: str) -> Any:
    """A module of a vendor's client. Without it the tests are skipped on somebody's machine, and fail in CI."""
    try:
        return import_module(module)
    except ModuleNotFoundError:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"needs the client: pip install '{requirement}'", allow_module_level=True)


class Authority:
    """A certificate authority of one test; its keys leave ``folder`` with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        usage = {
            name: name in ("key_cert_sign", "crl_sign")
            for name in (
                "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
            )
        }  # fmt: skip
        builder = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
        )
        self.certificate = builder.sign(self._key, hashes.SHA256())
        self.ca_file = folder / "authority.pem"
        self.ca_file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def server_context(self, hosts: Sequence[str]) -> ssl.SSLContext:
        """For a server that is all of these hosts, and loopback."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (*hosts, "localhost")[0])])
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in (*hosts, "localhost")]
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        builder = (
            self._builder(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        made = builder.sign(self._key, hashes.SHA256())
        file = self.folder / "server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        return context

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        issuer_key = self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=6))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        )


@dataclass
class Stage:
    """What a client is pointed at. ``asked`` are the hosts it tunnelled to, ``refused`` those it may not reach."""

    url: str
    port: int
    ca_file: str
    hosts: tuple[str, ...]
    proxy_url: str = ""
    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """What clients read that take proxies and authorities from the environment."""
        proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self.proxy_url)
        authorities = dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"), self.ca_file)
        return {**proxies, **authorities, "NO_PROXY": "", "no_proxy": ""}


@asynccontextmanager
async def staged(emulator: Emulator, folder: Path, *hosts: str) -> AsyncIterator[Stage]:
    """Serves the emulator over TLS as ``hosts``. The emulator's own links lead to the first of them, or to loopback."""
    slug = emulator.slug
    served = await _on_free_ports(
        2, lambda ports: serve_emulators({slug: emulator}, port=ports[0], ports={slug: ports[1]})
    )
    inner = int(served.urls[slug].rpartition(":")[2])
    authority = Authority(folder)
    open_ones: set[asyncio.Task[None]] = set()
    stage = Stage(url="", port=0, ca_file=str(authority.ca_file), hosts=hosts)
    context = authority.server_context(hosts)
    front, stage.port = await _serve(_piping_to(inner), open_ones, context)
    stage.url = f"https://localhost:{stage.port}"
    proxy, port = await _serve(_tunnelling(stage), open_ones)
    stage.proxy_url = f"http://127.0.0.1:{port}"
    emulator.base_url = f"https://{hosts[0]}" if hosts else stage.url
    try:
        yield stage
    finally:
        for server in (proxy, front):
            server.close()
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)
        await served.close()


def _piping_to(port: int) -> Serving:
    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, *await asyncio.open_connection("127.0.0.1", port))

    return pipe


def _tunnelling(stage: Stage) -> Serving:
    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        host, _, port = target.rpartition(":")
        if method != "CONNECT" or host not in stage.hosts or port != "443":
            stage.refused.append(target)
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()
            return
        stage.asked.append(host)
        far = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _join(reader, writer, *far)

    return tunnel


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Bytes both ways until one side is done: a cut at the emulator is a cut for the client."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(65_536):
                sink.write(chunk)
                await sink.drain()
        finally:
            sink.close()

    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)


async def _serve(
    serving: Serving, open_ones: set[asyncio.Task[None]], context: ssl.SSLContext | None = None
) -> tuple[asyncio.Server, int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        try:
            # Clients come and go as they like; what they break off is not a fault of the test.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await serving(reader, writer)
        finally:
            open_ones.discard(task)
            writer.close()

    async def listen(ports: Sequence[int]) -> tuple[asyncio.Server, int]:
        return await asyncio.start_server(answer, "127.0.0.1", ports[0], ssl=context), ports[0]

    return await _on_free_ports(1, listen)


async def _on_free_ports(count: int, listen: Callable[[Sequence[int]], Awaitable[T]]) -> T:
    """Tries ports at random: several test processes share the range."""
    for _ in range(50):
        try:
            return await listen(random.sample(PORTS, count))
        except OSError:
            continue
    raise RuntimeError(f"no free port from {PORTS.start} to {PORTS.stop}")
