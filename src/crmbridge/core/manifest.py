"""Manifest: all that a driver may declare. A manifest names strategies, it never expresses a condition."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from crmbridge.core.operations import NOT_YET, DeleteLevel, Operation, Support
from crmbridge.core.records import Object

__all__ = [
    "Auth",
    "AuthKind",
    "Budget",
    "BudgetKind",
    "Call",
    "Idempotency",
    "IdempotencyKind",
    "LimitReading",
    "LookUp",
    "Manifest",
    "ObjectSpec",
    "Paging",
    "PagingKind",
    "Setting",
    "Verification",
    "WebhookScheme",
]


class AuthKind(StrEnum):
    """How a call proves who it is."""

    OAUTH_CODE = "oauth_code"
    CLIENT_CREDENTIALS = "client_credentials"
    API_KEY = "api_key"
    BEARER = "bearer"
    BASIC = "basic"
    HMAC = "hmac"
    SIGN_IN = "sign_in"
    NONE = "none"


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """The auth scheme. Names in ``secret``, ``user`` and ``client_*`` are names of settings.

    ``header`` and ``query`` say where an API key goes; ``prefix`` stands before it (``Bearer ``).
    OAuth facts: URLs may hold ``{setting}``; ``scopes`` are requested; ``access_seconds`` is a token's
    usual life; ``refresh_rotates`` when a refresh answers a new refresh token and kills the old one.
    """

    kind: AuthKind
    secret: str = ""
    user: str = ""
    header: str = ""
    query: str = ""
    prefix: str = ""
    authorize_url: str = ""
    token_url: str = ""
    revoke_url: str = ""
    scopes: tuple[str, ...] = ()
    scope_separator: str = " "
    authorize_extra: dict[str, str] = {}
    uses_pkce: bool = False
    client_auth: str = "body"
    access_seconds: int = 0
    refresh_rotates: bool = False
    refresh_idle_days: int = 0
    token_calls_per_minute: int = 0


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One thing an operator fills in. The connect form and the docs are drawn from it.

    ``kind`` is ``text``, ``url``, ``json``, ``boolean`` or ``choice`` (then ``options``). ``pattern`` is a
    regular expression for the entire trimmed value. ``is_generated`` values are made by crmbridge (a
    webhook secret) and shown once. ``follows`` names another secret: while a new one takes over, this setting holds
    the one that is in use, until that credential is revoked.
    """

    name: str
    label: str
    help: str
    is_secret: bool = False
    is_required: bool = True
    is_generated: bool = False
    follows: str = ""
    kind: str = "text"
    pattern: str = ""
    default: str = ""
    example: str = ""
    options: tuple[str, ...] = ()


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """How one operation is said over HTTP. Texts are templates of ``toolkit.templates``.

    Names that templates may use: ``id``, ``record`` (native fields), ``match``, ``key``, ``cursor``,
    ``limit``, ``filter``, ``settings`` (never secret ones), ``links``.
    ``result`` / ``id`` / ``next`` are JMESPath over the answer: the record (or list of them), the id within
    a record, the next cursor. ``body`` and ``form`` are JSON trees of templates; ``msgspec.UNSET`` = none.
    """

    method: str
    path: str
    query: dict[str, Any] = {}
    headers: dict[str, str] = {}
    body: Any = msgspec.UNSET
    form: dict[str, Any] | None = None
    result: str = ""
    id: str = ""
    next: str = ""
    ok_statuses: tuple[int, ...] = ()


class PagingKind(StrEnum):
    """How a list goes on."""

    NONE = "none"
    CURSOR = "cursor"
    PAGE = "page"
    OFFSET = "offset"
    LINK = "link"


class Paging(msgspec.Struct, frozen=True, kw_only=True):
    """Parameter names and limits of lists. ``next`` is a JMESPath to the cursor (or the next link)."""

    kind: PagingKind = PagingKind.NONE
    size_param: str = ""
    cursor_param: str = ""
    next: str = ""
    size: int = 50
    max_size: int = 100
    first_page: int = 1


class BudgetKind(StrEnum):
    """The four separate budgets providers keep."""

    BURST = "burst"
    SEARCH = "search"
    DAILY = "daily"
    CONCURRENT = "concurrent"


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """``limit`` calls per ``per_seconds`` (0 for concurrent: calls in flight per connection).

    ``headers`` is the prefix of the answer headers that tell of this budget (``x-ratelimit``); empty when none do.
    Name it only where they count in the same period: the limit they tell then counts instead of ``limit``.
    """

    kind: BudgetKind
    limit: int
    per_seconds: float = 0
    source: str = ""
    headers: str = ""


class LimitReading(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer tells of a budget. None: not told. ``reset_seconds`` counts from the answer."""

    limit: int | None = None
    remaining: int | None = None
    reset_seconds: float | None = None

    @property
    def is_exhausted(self) -> bool:
        """True when the provider says that no call is left."""
        return self.remaining is not None and self.remaining <= 0


class IdempotencyKind(StrEnum):
    """By what means a repeated create is recognised, by the provider or by our look-up.

    ``EXTERNAL_ID`` is our mark in a field of its own, ``MARK`` our mark in a text or field that is only read back.
    """

    NONE = "none"
    NATURAL_KEY = "natural_key"
    MARK = "mark"
    EXTERNAL_ID = "external_id"
    KEY_SENT = "key_sent"


class LookUp(StrEnum):
    """By what means an unknown outcome of one operation is settled.

    ``RECORD``: the record is read, and shows the change or is gone. ``MATCH``: the record that an upsert's match
    finds is read. ``REPEAT``: nothing shows it, and sending again has no second effect.
    """

    NONE = "none"
    NATURAL_KEY = "natural_key"
    MARK = "mark"
    EXTERNAL_ID = "external_id"
    KEY_SENT = "key_sent"
    RECORD = "record"
    MATCH = "match"
    REPEAT = "repeat"


class Idempotency(msgspec.Struct, frozen=True, kw_only=True):
    """The declared means. ``field`` is the external-id field, the field of the mark, the key's header, or the natural
    key's path.

    ``search_lag_seconds``: before it is over, a look-up may miss what is there; delivery waits for it.
    """

    kind: IdempotencyKind = IdempotencyKind.NONE
    field: str = ""
    search_lag_seconds: float = 0


class ObjectSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One canonical object at this provider.

    ``native`` is the provider's name, ``path`` its URL path, ``id_field`` the JMESPath of the id in a
    record. ``operations`` not named are NOT_YET. ``batch`` holds the largest number of records per call.
    ``links`` maps a linked canonical object to the native path that holds its id.
    ``delete_level`` is what an ordinary delete reaches, ``erase_level`` the privacy delete.
    ``look_ups`` says by what an unknown outcome is settled, where :meth:`Manifest.look_up` would say something else;
    ``doubts`` in one sentence when that cannot tell, so that the write is parked.
    """

    native: str
    path: str = ""
    id_field: str = "id"
    updated_field: str = ""
    url: str = ""
    natural_keys: tuple[str, ...] = ()
    operations: dict[Operation, Support] = {}
    batch: dict[Operation, int] = {}
    calls: dict[Operation, Call] = {}
    links: dict[Object, str] = {}
    delete_level: DeleteLevel = DeleteLevel.UNSUPPORTED
    erase_level: DeleteLevel = DeleteLevel.UNSUPPORTED
    idempotency: Idempotency = Idempotency()
    look_ups: dict[Operation, LookUp] = {}
    doubts: dict[Operation, str] = {}
    required: tuple[str, ...] = ()


class WebhookScheme(msgspec.Struct, frozen=True, kw_only=True):
    """How inbound events are signed; ``profile`` is a preset name of ``toolkit.signatures``."""

    profile: str = ""
    support: Support = NOT_YET("inbound events come in a later version")


class Verification(StrEnum):
    """What the driver was tried against, said plainly."""

    SPEC = "spec"
    RECORDING = "recording"
    LIVE = "live"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One provider, declared. ``base_url`` may hold ``{setting}`` and ``{fact}``.

    ``gate`` names a gate that must be open before any call (``phi``). ``test_call`` names the lightest call
    that proves the credential. ``why_unavailable`` makes every call refuse with ``driver_unavailable``.
    ``timeout_seconds`` bounds one call, from connect to the last byte.
    ``strict_ids`` is a regular expression of valid remote ids (they stand in URLs).
    """

    slug: str
    display_name: str
    api_version: str
    pages: tuple[str, ...]
    read_on: str
    auth: Auth
    settings: tuple[Setting, ...] = ()
    base_url: str = ""
    data_centres: dict[str, str] = {}
    objects: dict[Object, ObjectSpec] = {}
    paging: Paging = Paging()
    budgets: tuple[Budget, ...] = ()
    webhooks: WebhookScheme = WebhookScheme()
    test_call: Call | None = None
    verification: Verification = Verification.SPEC
    verification_note: str = ""
    verticals: tuple[str, ...] = ("general",)
    gate: str = ""
    why_unavailable: str = ""
    timeout_seconds: float = 30.0
    strict_ids: str = r"[A-Za-z0-9._:\-]{1,200}"
    setup_help: str = ""

    def supports(self, obj: Object, operation: Operation) -> Support:
        """The declared answer; anything undeclared is NOT_YET."""
        spec = self.objects.get(obj)
        if spec is None:
            return NOT_YET(f"{self.display_name} has no {obj.value} in this driver")
        return spec.operations.get(operation) or NOT_YET()

    def batch_size(self, obj: Object, operation: Operation) -> int:
        """Most records in one provider call; 1 when no batch is declared."""
        spec = self.objects.get(obj)
        return spec.batch.get(operation, 1) if spec else 1

    def look_up(self, obj: Object, operation: Operation) -> LookUp:
        """By what an unknown outcome of this write is settled.

        Unless declared: a key that is sent serves for all; a create goes by its idempotency, an upsert by its match;
        what names a record, by reading that record.
        """
        spec = self.objects.get(obj)
        if spec is None or not operation.is_write:
            return LookUp.NONE
        if operation in spec.look_ups:
            return spec.look_ups[operation]
        if operation is Operation.CREATE or spec.idempotency.kind is IdempotencyKind.KEY_SENT:
            return LookUp(spec.idempotency.kind.value)
        needed = Operation.SEARCH if operation is Operation.UPSERT else Operation.GET
        if not self.supports(obj, needed).is_usable:
            return LookUp.NONE
        return LookUp.MATCH if operation is Operation.UPSERT else LookUp.RECORD

    def in_flight_limit(self) -> int:
        """Calls in flight per connection; 4 when the provider declares none."""
        for budget in self.budgets:
            if budget.kind is BudgetKind.CONCURRENT:
                return budget.limit
        return 4
