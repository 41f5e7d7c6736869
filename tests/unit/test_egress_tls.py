"""Egress over TLS on loopback, with a certificate made for the test."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.egress_sites import FixedResolver, free_port

from crmbridge.core.wire import HttpRequest, TransportFailure, TransportFault
from crmbridge.toolkit.egress import Egress, EgressPolicy

HOST = "crm.example.com"


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "certificate.pem", folder / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate_path, key_path


@pytest.fixture
async def tls_site(tmp_path: Path) -> AsyncIterator[tuple[int, Path]]:
    certificate, key = _certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request.method)

    app = web.Application()
    app.router.add_route("*", "/", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    yield port, certificate
    await runner.cleanup()


def _egress(host: str, context: ssl.SSLContext | None = None) -> Egress:
    return Egress(EgressPolicy((host,)), resolver=FixedResolver(["127.0.0.1"]), ssl_context=context)


async def test_send_when_certificate_is_not_trusted_then_tls_fault_and_not_sent(
    tls_site: tuple[int, Path],
) -> None:
    egress = _egress(HOST)
    with pytest.raises(TransportFailure) as caught:
        await egress.send(HttpRequest(method="POST", url=f"https://{HOST}:{tls_site[0]}/", json={}))
    await egress.close()
    assert (caught.value.fault, caught.value.was_sent) == (TransportFault.TLS, False)


async def test_send_when_authority_is_trusted_then_answered_only_for_the_right_name(
    tls_site: tuple[int, Path],
) -> None:
    port, certificate = tls_site
    context = ssl.create_default_context(cafile=str(certificate))
    egress = _egress(HOST, context)
    assert (await egress.send(HttpRequest(method="PUT", url=f"https://{HOST}:{port}/"))).body == b"PUT"
    await egress.close()
    other = _egress("other.example.com", context)
    with pytest.raises(TransportFailure) as caught:
        await other.send(HttpRequest(method="PUT", url=f"https://other.example.com:{port}/"))
    await other.close()
    assert (caught.value.fault, caught.value.was_sent) == (TransportFault.TLS, False)
