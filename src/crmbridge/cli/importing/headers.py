"""Which column of an import file goes to which slot: a suggestion, and the ``--map`` option."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

__all__ = ["SYNONYMS", "normalise_header", "parse_map_option", "suggest_mapping"]

SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "first_name": ("first", "given name", "forename", "fname", "christian name", "vorname", "prenom", "nombre"),
    "last_name": ("last", "surname", "family name", "lname", "second name", "nachname", "nom", "apellidos", "apellido"),
    "full_name": ("name", "full name", "contact name", "customer name", "client name", "lead name", "contact",
                  "client"),
    "email": (
        "e mail", "mail", "email address", "e mail address", "mail address", "primary email", "email 1",
        "work email", "correo", "correo electronico", "courriel", "e mail adresse",
    ),
    "phone": (
        "mobile phone", "mobile", "cell", "cell phone", "telephone", "tel", "phone number", "mobile number",
        "cellphone", "contact number", "primary phone", "phone 1", "whatsapp", "telefon", "telefonnummer",
        "handy", "telefono",
        "movil", "portable", "gsm",
    ),
    "company": ("company name", "organisation", "organization", "employer", "firma", "business", "societe", "empresa"),
    "street": ("address", "street address", "address line 1", "address 1", "strasse", "adresse", "rue", "direccion"),
    "city": ("town", "locality", "stadt", "ort", "ville", "ciudad"),
    "region": ("state", "province", "emirate", "county", "bundesland"),
    "postal_code": ("zip", "zip code", "zipcode", "postcode", "post code", "plz", "code postal", "codigo postal"),
    "country": ("country code", "land", "pays", "pais"),
    "language": ("preferred language", "lang", "locale", "sprache", "langue", "idioma"),
    "source": ("lead source", "origin", "channel", "campaign source", "utm source", "quelle", "herkunft"),
    "birth_date": ("birthday", "date of birth", "dob", "birthdate", "born", "geburtsdatum", "geburtstag"),
    "notes": ("note", "comment", "comments", "remark", "remarks", "message", "description", "notiz", "notizen"),
    "message": ("note", "notes", "comment", "comments", "remark", "remarks", "enquiry", "inquiry", "description",
                "notiz", "notizen", "bemerkung", "nachricht"),
    "description": ("details", "note", "notes", "comment", "comments"),
    "body": ("text", "note", "notes", "content", "transcript"),
    "title": ("subject", "headline", "topic", "betreff"),
    "subject": ("title", "headline", "topic", "betreff"),
    "status": ("lead status", "stage", "state of lead"),
    "stage": ("deal stage", "status", "pipeline stage"),
    "value": ("amount", "expected revenue", "deal value", "lead value", "wert"),
    "amount": ("value", "deal value", "price", "betrag"),
    "tags": ("labels", "tag", "label", "keywords"),
    "budget_min": ("min budget", "minimum budget", "budget from", "price from", "price min", "min price",
                   "budget minimum"),
    "budget_max": ("max budget", "maximum budget", "budget to", "price to", "price max", "max price", "budget maximum",
                   "budget up to", "budget"),
    "bedrooms": ("beds", "bed", "bedroom", "br", "no of bedrooms", "number of bedrooms", "rooms", "zimmer"),
    "area": ("location", "community", "neighbourhood", "neighborhood", "district", "preferred area"),
    "property_type": ("property", "type of property", "unit type"),
    "move_in_date": ("move in", "moving date", "move date"),
    "intent": ("buy or rent", "purpose", "looking to"),
    "start_at": ("start", "start time", "starts at", "begin", "appointment time", "date and time"),
    "end_at": ("end", "end time", "ends at", "finish"),
    "party_size": ("guests", "covers", "people", "number of guests", "pax"),
    "vehicle.make": ("make", "brand", "vehicle make", "car make"),
    "vehicle.model": ("model", "vehicle model", "car model"),
    "vehicle.year": ("year", "model year", "vehicle year"),
    "vehicle.vin": ("vin", "chassis number"),
    "vehicle.plate": ("plate", "licence plate", "license plate", "registration", "number plate"),
    "vehicle.odometer": ("odometer", "mileage", "reading"),
}  # fmt: skip
"""Other names of a slot as :func:`normalise_header` leaves them, by the slot's name without its object."""

_SLOT: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){0,3}")
_OBJECTS: Final = ("customer.", "lead.", "deal.", "appointment.", "case.", "note.", "activity.")
_MAX_OPTION: Final = 20_000


def normalise_header(header: str) -> str:
    """Lower case without accents; every run of other signs than letters and digits becomes one blank."""
    text = unicodedata.normalize("NFKD", header).casefold()
    text = "".join(
        " " if not letter.isalnum() else letter for letter in text if not unicodedata.combining(letter)
    )
    return " ".join(text.split())


def suggest_mapping(headers: Sequence[str], slots: Mapping[str, Iterable[str]]) -> dict[str, str | None]:
    """For each header the slot that it most likely means, or None; a slot is suggested once.

    ``slots``: the slots of the object (``email`` or ``lead.email``), each with further names, which may be
    empty (a tenant's labels, say). A header that spells the slot's name wins over a given name, that over a
    synonym of :data:`SYNONYMS`; among equals the earlier header wins.
    """
    ranks: list[dict[str, str]] = [{}, {}, {}]
    for slot, names in slots.items():
        leaf = next((slot[len(prefix) :] for prefix in _OBJECTS if slot.startswith(prefix)), slot)
        for exact in (slot, leaf):
            ranks[0].setdefault(normalise_header(exact), slot)
        for name in names:
            ranks[1].setdefault(normalise_header(name), slot)
    for slot in slots:
        leaf = next((slot[len(prefix) :] for prefix in _OBJECTS if slot.startswith(prefix)), slot)
        for name in SYNONYMS.get(leaf, ()):
            ranks[2].setdefault(name, slot)
    chosen: dict[str, str | None] = dict.fromkeys(headers)
    taken: set[str] = set()
    for names_of_rank in ranks:
        for header in headers:
            found = names_of_rank.get(normalise_header(header))
            if chosen[header] is None and found is not None and found not in taken:
                chosen[header] = found
                taken.add(found)
    return chosen


def parse_map_option(text: str) -> dict[str, str | None]:
    """``E-Mail=email,First Name=first_name`` as header → slot; ``Header=`` (None) leaves a column out.

    A header with a comma stands in double quotes: ``"Name, full"=full_name``. Raises ``ValueError`` with a
    reason that names the pair by its place.
    """
    if len(text) > _MAX_OPTION:
        raise ValueError(f"--map is longer than {_MAX_OPTION:,} characters")
    if any(sign in text for sign in "\r\n\0"):
        raise ValueError("--map must stand on one line")
    try:
        pairs = next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error:
        raise ValueError("--map: a quote is not closed") from None
    mapping: dict[str, str | None] = {}
    for place, pair in enumerate(pairs, start=1):
        header, equals, slot = (part.strip() for part in pair.rpartition("="))
        if not equals or not header:
            raise ValueError(f"--map, pair {place}: write Header=slot")
        if slot and not _SLOT.fullmatch(slot):
            raise ValueError(f"--map, pair {place}: a slot is written like email or vehicle.make")
        if header in mapping:
            raise ValueError(f"--map, pair {place}: this header stands twice")
        if slot and slot in mapping.values():
            raise ValueError(f"--map, pair {place}: slot {slot} is used twice")
        mapping[header] = slot or None
    if not mapping:
        raise ValueError("--map: write Header=slot,Header=slot")
    return mapping
