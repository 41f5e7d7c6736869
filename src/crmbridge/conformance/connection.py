"""Topic connection: the live test proves the credential, changes nothing, and fails as it should."""

from __future__ import annotations

from crmbridge.conformance.cases import NotApplicable, expect
from crmbridge.conformance.harness import Harness
from crmbridge.core.errors import Unsupported

__all__ = ["ConnectionTopic"]

_NO_TEST = "test_connection is refused: declare test_call, the lightest call that proves the credential"


class ConnectionTopic(Harness):
    """``test_connection`` and ``prepare``."""

    async def test_connection_passes_and_changes_nothing(self) -> None:
        bench = await self.make(is_prepared=False)
        try:
            proof = await bench.driver.test_connection()
        except Unsupported as error:
            expect(False, f"{_NO_TEST} ({error.message})")
        expect(all(isinstance(text, str) for text in proof.facts.values()), "facts must be texts")
        if bench.has_emulator:
            expect(bench.emulator.written == 0, "the connection test wrote into the CRM")
            expect(bench.emulator.requests, "the connection test sent nothing, so it proves nothing")

    async def test_connection_with_a_wrong_secret_is_an_auth_error(self) -> None:
        bench = await self.make(is_prepared=False)
        if not bench.access.secrets:
            raise NotApplicable("the credential has no secret")
        wrong = dict.fromkeys(bench.access.secrets, "0" * 40)
        other = await self.make(is_prepared=False, secrets=wrong)
        error = await other.fails(other.driver.test_connection(), "a wrong secret")
        expect(error.code == "auth_error", f"a wrong secret gives {error.full_code}, expected auth_error")
        expect(not error.retry_safe, "an auth error must not be retried blindly")

    async def test_connection_that_cannot_be_reached_is_unavailable(self) -> None:
        bench = await self.make(is_prepared=False)
        bench.emulator.faults.add("refused", times=0)
        error = await bench.fails(bench.driver.test_connection(), "a refused connection")
        expect(error.code == "unavailable", f"a refused connection gives {error.full_code}")

    async def test_prepare_twice_gives_the_same_and_makes_nothing_twice(self) -> None:
        bench = await self.make()
        rows = bench.rows() if bench.has_emulator else 0
        first = dict(bench.access.facts)
        again = await bench.open().prepare()
        expect({**first, **again} == first, "a second prepare answered other facts")
        if bench.has_emulator:
            expect(bench.rows() == rows, "a second prepare made something a second time")
