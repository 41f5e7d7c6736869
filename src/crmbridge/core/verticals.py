"""Slots: the canonical fields of the seven objects, the general ones and the packs of each trade."""

from __future__ import annotations

from enum import StrEnum
from functools import cache

import msgspec

from crmbridge.core.records import Object

__all__ = ["PACKS", "Slot", "SlotType", "Vertical", "slots_for"]


class Vertical(StrEnum):
    """A tenant's trade."""

    CLINIC = "clinic"
    SALON = "salon"
    AUTO_SERVICE = "auto_service"
    RESTAURANT = "restaurant"
    REAL_ESTATE = "real_estate"
    GENERAL = "general"


class SlotType(StrEnum):
    """The types of slot values as JSON carries them.

    ``phone`` is E.164, ``money`` a decimal text or number, ``date`` YYYY-MM-DD, ``datetime`` RFC 3339 with a
    zone, ``pick_list`` one text of ``options`` (or any text when none are given), ``tags`` a list of texts.
    """

    TEXT = "text"
    LONG_TEXT = "long_text"
    EMAIL = "email"
    PHONE = "phone"
    INTEGER = "integer"
    NUMBER = "number"
    MONEY = "money"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "datetime"
    PICK_LIST = "pick_list"
    URL = "url"
    TAGS = "tags"


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One canonical field, written ``object.name`` (``lead.budget_max``).

    ``personal`` tells whether it can identify or describe a person: ``no``, ``personal`` or ``health``.
    """

    object: Object
    name: str
    type: SlotType = SlotType.TEXT
    help: str = ""
    personal: str = "no"
    options: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """``object.name``."""
        return f"{self.object.value}.{self.name}"


def _slots(obj: Object, rows: str) -> tuple[Slot, ...]:
    """Each row: ``name type personal help``, ``type`` may be ``pick_list:a,b,c``."""
    slots = []
    for row in filter(None, rows.splitlines()):
        name, kind, personal, text = row.split(maxsplit=3)
        kind, _, options = kind.partition(":")
        slots.append(
            Slot(
                object=obj,
                name=name,
                type=SlotType(kind),
                personal=personal,
                help=text,
                options=tuple(options.split(",")) if options else (),
            )
        )
    return tuple(slots)


_PERSON = """
first_name   text      personal Given name
last_name    text      personal Family name
full_name    text      personal The name as one text, for providers or sources that do not split it
email        email     personal E-mail address
phone        phone     personal Phone number, E.164
company      text      no       Company the person works for
street       text      personal Street and number
city         text      personal Town
region       text      personal State, province or emirate
postal_code  text      personal Postal code
country      text      no       Country, ISO 3166 two letters
language     text      no       Language tag, such as en or ar-AE
source       text      no       Where the person came from
"""

GENERAL: dict[Object, tuple[Slot, ...]] = {
    Object.CUSTOMER: _slots(
        Object.CUSTOMER,
        _PERSON
        + """
birth_date   date      personal Date of birth
notes        long_text personal Free text about the customer
tags         tags      no       Labels
""",
    ),
    Object.LEAD: _slots(
        Object.LEAD,
        _PERSON
        + """
title        text      personal One line: what the lead wants
message      long_text personal What the person said or wrote
status       text      no       Stage or status, in the CRM's own words
value        money     no       Expected revenue
tags         tags      no       Labels
""",
    ),
    Object.DEAL: _slots(
        Object.DEAL,
        """
name         text      personal Name of the deal
amount       money     no       Amount
currency     text      no       ISO 4217 three letters
stage        text      no       Stage, in the CRM's own words
close_date   date      no       Expected close
description  long_text personal What it is about
""",
    ),
    Object.APPOINTMENT: _slots(
        Object.APPOINTMENT,
        """
title        text      personal One line shown in the calendar
start_at     datetime  personal Start
end_at       datetime  personal End
location     text      personal Where
status       text      no       Status, in the CRM's own words
notes        long_text personal Free text for the staff
""",
    ),
    Object.CASE: _slots(
        Object.CASE,
        """
subject      text      personal One line
description  long_text personal What happened and what is asked
status       text      no       Status, in the CRM's own words
priority     pick_list:low,normal,high,urgent no How urgent
category     text      no       Kind of case
""",
    ),
    Object.NOTE: _slots(
        Object.NOTE,
        """
body         long_text personal The text
written_at   datetime  no       When it was written
""",
    ),
    Object.ACTIVITY: _slots(
        Object.ACTIVITY,
        """
kind         pick_list:call,chat,email,meeting,sms no Kind of conversation
subject      text      personal One line
body         long_text personal Summary or transcript
direction    pick_list:inbound,outbound no Who began
started_at   datetime  no       Start
ended_at     datetime  no       End
duration_seconds integer no     Length
result       text      no       How it ended
recording_url url      personal Where the recording is kept
""",
    ),
}

PACKS: dict[Vertical, tuple[Slot, ...]] = {
    Vertical.GENERAL: (),
    Vertical.REAL_ESTATE: _slots(
        Object.LEAD,
        """
budget_min    money   no Lowest price
budget_max    money   no Highest price
bedrooms      integer no Number of bedrooms
area          text    no Wished area or community
property_type text    no Flat, villa, office and so on
move_in_date  date    no Wished move-in date
intent        pick_list:buy,rent,sell,let no Buy, rent, sell or let
""",
    ),
    Vertical.CLINIC: _slots(
        Object.APPOINTMENT,
        """
reason        long_text health Why the patient comes
department    text      health Department
practitioner  text      no     Doctor or nurse
is_new_patient boolean  health First visit
""",
    )
    + _slots(
        Object.CUSTOMER,
        """
sex           text      health As recorded by the clinic
insurance     text      health Insurer
""",
    )
    + _slots(Object.CASE, "department text health Department"),
    Vertical.SALON: _slots(
        Object.APPOINTMENT,
        """
service       text      no Service booked
staff         text      no Wished member of staff
""",
    ),
    Vertical.AUTO_SERVICE: _slots(
        Object.APPOINTMENT,
        """
concern           long_text no Customer's concern
vehicle.make      text      no Make
vehicle.model     text      no Model
vehicle.year      integer   no Model year
vehicle.vin       text      personal Vehicle identification number
vehicle.plate     text      personal Licence plate
vehicle.odometer  integer   no Reading
""",
    )
    + _slots(
        Object.LEAD,
        """
concern           long_text no Customer's concern
vehicle.make      text      no Make
vehicle.model     text      no Model
vehicle.year      integer   no Model year
""",
    ),
    Vertical.RESTAURANT: _slots(
        Object.APPOINTMENT,
        """
party_size        integer   no Number of guests
occasion          text      no Occasion
dietary           long_text health Allergies and wishes
""",
    ),
}


@cache
def slots_for(obj: Object, vertical: Vertical) -> dict[str, Slot]:
    """The slots of one object for one trade, by name: the general ones, then the trade's own."""
    slots = {slot.name: slot for slot in GENERAL[obj]}
    slots.update({slot.name: slot for slot in PACKS[vertical] if slot.object is obj})
    return slots
