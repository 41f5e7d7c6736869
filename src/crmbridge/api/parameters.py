"""How route functions name what they are given."""

from __future__ import annotations

from typing import Annotated

from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter

from crmbridge.api.authentication import Caller
from crmbridge.services import Services

__all__ = [
    "FromPath",
    "FromQuery",
    "House",
    "IdempotencyKey",
    "JSONBody",
    "ObjectFilter",
    "Prefer",
    "StateFilter",
    "Who",
]

House = NamedDependency[Services]
Who = NamedDependency[Caller]
IdempotencyKey = Annotated[str, HeaderParameter(name="Idempotency-Key")]
Prefer = Annotated[str, HeaderParameter(name="Prefer")]
# Litestar keeps the plain name `state` for itself.
StateFilter = Annotated[str, QueryParameter(name="state")]
ObjectFilter = Annotated[str, QueryParameter(name="object")]
