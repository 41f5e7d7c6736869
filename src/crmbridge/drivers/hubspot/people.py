"""Customers by e-mail and by phone."""

from __future__ import annotations

from crmbridge.core.records import Object, Record
from crmbridge.drivers.hubspot.reading import Reader, term
from crmbridge.toolkit.phones import to_e164

__all__ = ["customers"]

MOST = 20


async def customers(reader: Reader, *, email: str, phone: str) -> list[Record]:
    """Contacts with this e-mail or phone, those with both first."""
    by_email = await customers_by_email(reader, email) if email else []
    by_phone = await customers_by_phone(reader, phone) if phone else []
    both = {one.remote_id for one in by_email} & {one.remote_id for one in by_phone}
    ordered = sorted([*by_email, *by_phone], key=lambda one: one.remote_id not in both)
    return list({one.remote_id: one for one in ordered}.values())[:20]


async def customers_by_email(reader: Reader, email: str) -> list[Record]:
    """Exactly and without lag: e-mails are unique, so this is a read by key and no search."""
    native = reader.natives[Object.CUSTOMER]
    found = await reader.many(native, [email.strip().lower()], by="email", operation="lookup")
    return [reader.record(Object.CUSTOMER, one) for one in found]


async def customers_by_phone(reader: Reader, phone: str) -> list[Record]:
    """By search, as stored, and by the calculated properties, which leave the country code out."""
    groups = [[term(name, "EQ", phone)] for name in ("phone", "mobilephone")]
    groups += [
        [term(f"hs_searchable_calculated_{name}", "EQ", national)]
        for national in _national(phone)
        for name in ("phone_number", "mobile_number")
    ]
    records, _ = await reader.search(Object.CUSTOMER, groups, limit=MOST, operation="lookup")
    return [one for one in records if _is_phone_of(one, phone)]


def _national(phone: str) -> list[str]:
    """The number without its country code, as HubSpot's calculated phone properties have it."""
    import phonenumbers

    try:
        return [str(phonenumbers.parse(phone).national_number)]
    except phonenumbers.NumberParseException:
        return []


def _is_phone_of(record: Record, phone: str) -> bool:
    """Whether one of the contact's numbers is really this one, or the same without a country code."""
    for name in ("phone", "mobilephone"):
        said = str(record.native.get(name, ""))
        digits = "".join(each for each in said if each.isdigit())
        if said and (to_e164(said) == phone or digits.lstrip("0") in _national(phone)):
            return True
    return False
