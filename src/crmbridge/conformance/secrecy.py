"""Topic secrecy: no secret and no person in errors, logs or URLs."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from crmbridge.conformance.cases import expect
from crmbridge.conformance.erasure import persons_of
from crmbridge.conformance.harness import Bench, Harness
from crmbridge.core.errors import CrmError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.emulation import Emulator

__all__ = ["SecrecyTopic", "sent_text"]

_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("status", {"status": 401}),
    ("status", {"status": 403}),
    ("status", {"status": 404}),
    ("status", {"status": 409}),
    ("status", {"status": 422}),
    ("status", {"status": 429}),
    ("status", {"status": 500}),
    ("html", {"status": 502}),
    ("html", {}),
    ("garbage", {}),
    ("empty", {}),
    ("wrong_shape", {}),
    ("cut_after", {}),
    ("timeout_before", {}),
    ("refused", {}),
)


class SecrecyTopic(Harness):
    """The sample's person and the credential are the canaries; both are searched for everywhere."""

    async def test_secrecy_errors_and_logs_hold_no_secret_and_no_person(self) -> None:
        obj = self.first(Operation.CREATE)
        with _captured_logs() as logged:
            texts = await self._failing_texts(obj)
        bench = await self.make()
        canaries = _secrets(bench) + persons_of(self, obj)
        texts["the log"] = logged.getvalue()
        for where, text in texts.items():
            found = [canary for canary in canaries if _holds(text, canary)]
            expect(not found, f"{where} holds {_name(found, bench)}")

    async def test_secrecy_when_the_provider_echoes_then_errors_do_not(self) -> None:
        """Providers repeat values and even credentials in their messages; people read our errors."""
        obj = self.first(Operation.CREATE)
        bench = await self.make()
        canaries = _secrets(bench) + persons_of(self, obj)
        echo = " ".join([*_secrets(bench), *(str(value) for value in self.sample(obj).values())])
        for status in (400, 401, 403, 409, 422, 500):
            for body in ({"message": echo, "error": echo}, {"errors": [{"message": echo}]}, [echo], echo):
                write = await bench.write(Operation.CREATE, obj)
                bench.emulator.faults.clear()
                bench.emulator.faults.add("status", status=status, only="writes", times=0, body=body)
                error = await _error_of(bench.send(write))
                found = [canary for canary in canaries if _holds(_all_texts(error), canary)]
                expect(not found, f"the error of a {status} that echoes holds {_name(found, bench)}")
        bench.emulator.faults.clear()

    async def test_secrecy_urls_hold_no_secret(self) -> None:
        bench = await self._busy_bench()
        secrets = _secrets(bench)
        if self.manifest().auth.query:
            return
        for request in bench.emulator.requests:
            url = unquote_plus(request.full_url())
            expect(
                not any(secret in url for secret in secrets), f"the URL of a {request.method} holds a secret"
            )

    async def test_secrecy_urls_of_writes_hold_no_person(self) -> None:
        bench = await self._busy_bench()
        for request in bench.emulator.requests:
            if request.method in ("GET", "HEAD"):
                continue
            url = unquote_plus(request.full_url()).lower()
            found = [each for each in persons_of(self, self.first(Operation.CREATE)) if each in url]
            expect(not found, f"the URL of a {request.method} holds {len(found)} values of the person")

    async def test_secrecy_urls_of_reads_hold_no_person(self) -> None:
        bench = await self._busy_bench()
        obj = self.first(Operation.CREATE)
        if self.manifest().supports(Object.CUSTOMER, Operation.LOOKUP).is_usable:
            sample = self.sample(Object.CUSTOMER)
            await bench.driver.lookup_customer(email=sample.get("email", ""), phone=sample.get("phone", ""))
        for request in bench.emulator.requests:
            url = unquote_plus(request.full_url()).lower()
            found = [each for each in persons_of(self, obj) if each in url]
            expect(not found, f"the URL of a {request.method} holds {len(found)} values of the person")

    async def test_secrecy_printed_driver_and_preview_hold_no_secret(self) -> None:
        bench = await self.make()
        write = await bench.write(Operation.CREATE, self.first(Operation.CREATE))
        preview = msgspec.json.encode(bench.driver.preview(write), enc_hook=repr).decode()
        facts = str(bench.access.facts)
        for where, text in (
            ("repr of the access", repr(bench.access)),
            ("repr of the driver", f"{bench.driver!r} {vars(bench.driver)!r}"),
            ("the preview", preview),
            ("the facts", facts),
        ):
            expect(not any(secret in text for secret in _secrets(bench)), f"{where} holds a secret")

    async def _failing_texts(self, obj: Object) -> dict[str, str]:
        texts = {}
        for kind, matchers in _FAULTS:
            for only in ("writes", ""):
                bench = await self.make()
                write = await bench.write(Operation.CREATE, obj)
                bench.emulator.faults.add(kind, only=only, times=0, **matchers)
                error = await _error_of(bench.send(write))
                texts[f"the error of {kind} {matchers.get('status', '')}".rstrip()] = _all_texts(error)
        return texts

    async def _busy_bench(self) -> Bench:
        """A bench that has made one of every call of the first object."""
        manifest = self.manifest()
        obj = self.first(Operation.CREATE)
        bench = await self.make()
        write = await bench.write(Operation.CREATE, obj)
        made = await bench.send(write)
        await self.wait(bench, manifest.objects[obj].idempotency.search_lag_seconds)
        await bench.driver.find_written(write)
        if manifest.supports(obj, Operation.GET).is_usable:
            await bench.driver.get_record(obj, made.remote_id)
        if manifest.supports(obj, Operation.LIST).is_usable:
            await bench.driver.list_recent(obj)
        if manifest.supports(obj, Operation.UPDATE).is_usable:
            slot, value = next(iter(self.two_way(obj, self.sample(obj)).items()))
            await bench.update(obj, made.remote_id, {slot: value})
        return bench


def sent_text(emulator: Emulator) -> str:
    """Everything the emulator was sent, as one text."""
    parts = []
    for request in emulator.requests:
        parts += [request.full_url(), str(request.headers), (request.body or b"").decode(errors="replace")]
    return "\n".join(parts)


@contextmanager
def _captured_logs() -> Iterator[io.StringIO]:
    """All standard logging, from DEBUG up, while the block runs."""
    stream = io.StringIO()
    listener = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.removeHandler(listener)
        root.setLevel(level)


async def _error_of(call: Awaitable[Any]) -> Exception | None:
    """Whatever was raised: the topic failures says what it should have been, here it must only be silent."""
    try:
        await call
    except Exception as error:
        return error
    return None


def _all_texts(error: Exception | None) -> str:
    """Text, repr, answer form and the chain of causes (what a log would show of it)."""
    if error is None:
        return ""
    parts = [str(error), repr(error)]
    if isinstance(error, CrmError):
        parts.append(msgspec.json.encode(error.to_dict(), enc_hook=str).decode())
        parts += [str(field) for field in error.fields]
    parts += traceback.TracebackException.from_exception(error, capture_locals=False).format()
    return "\n".join(parts)


def _secrets(bench: Bench) -> list[str]:
    texts = {**bench.emulator.secrets(), **bench.contract.secrets}
    return [text for text in texts.values() if len(text) >= 8]


def _holds(text: str, canary: str) -> bool:
    return canary in text or canary.lower() in text.lower()


def _name(found: list[str], bench: Bench) -> str:
    """Says what leaked without leaking it."""
    secrets = sum(text in _secrets(bench) for text in found)
    return f"{secrets} secrets and {len(found) - secrets} values of the person"
