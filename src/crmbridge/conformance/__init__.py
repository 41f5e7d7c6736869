"""The contract that every driver keeps, as tests that anyone can run, outside drivers too.

In the driver's one test file (pytest with ``asyncio_mode = "auto"``)::

    from crmbridge.conformance import DriverContract
    from crmbridge.core.records import Object
    from crmbridge.drivers.acme.driver import Acme
    from crmbridge.drivers.acme.emulator import AcmeEmulator

    class TestAcme(DriverContract):
        driver = Acme
        emulator = AcmeEmulator
        samples = {Object.LEAD: {"title": "Flat", "email": "mei@example.com", "phone": "+97145550101"}}
        refused = {Object.LEAD: {"no_such_field": 1}}          # native fields that the provider refuses
        gaps = {"test_none_clears_a_slot__lead": "provider: keeps the old value on null"}

        async def test_odd_thing_when_asked_then_answers(self) -> None:
            bench = await self.make()                          # driver + emulator + transport, prepared
            result = await bench.create(Object.LEAD)           # the sample, mapped through fields.toml
            bench.emulator.faults.add("cut_after", only="writes")
            assert (await bench.get(Object.LEAD, result.remote_id)).fields["title"] == "Flat"

``samples`` may be left out for objects whose general samples (:mod:`.samples`) fit. Further attributes are
explained in :class:`crmbridge.conformance.harness.Harness`. One module per topic; a test that cannot apply
is skipped with its reason. ``gaps`` are strict: one that passes, or names no test, fails.
Without pytest: :func:`crmbridge.conformance.run.run_contract`, or ``crmbridge conformance <driver>``.
"""

from crmbridge.conformance.cases import NotApplicable, per_object, per_operation
from crmbridge.conformance.contract import DriverContract, LiveContract
from crmbridge.conformance.harness import Bench

__all__ = ["Bench", "DriverContract", "LiveContract", "NotApplicable", "per_object", "per_operation"]
