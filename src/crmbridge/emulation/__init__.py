"""The kit that emulators are made of: store, clock, faults, quotas, routes; imports core only.

An emulator is written from the provider's pages, never from the driver. See
:mod:`crmbridge.emulation.emulator` for the shape of one, :mod:`crmbridge.emulation.serve` for loopback.
"""

from crmbridge.emulation.clock import Clock
from crmbridge.emulation.consent import consent_page, sent_back, verifies
from crmbridge.emulation.emulator import Emulator, Incoming, Refusal, Route, route
from crmbridge.emulation.faults import Fault, FaultKind, Faults
from crmbridge.emulation.quotas import Quota
from crmbridge.emulation.store import EmulatorStore, Row, Table
from crmbridge.emulation.transport import InProcessTransport

__all__ = [
    "Clock",
    "Emulator",
    "EmulatorStore",
    "Fault",
    "FaultKind",
    "Faults",
    "InProcessTransport",
    "Incoming",
    "Quota",
    "Refusal",
    "Route",
    "Row",
    "Table",
    "consent_page",
    "route",
    "sent_back",
    "verifies",
]
