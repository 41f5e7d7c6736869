"""What can be done with a guest of Toast, in its two forms: by a guest API, and as a copy on orders.

No published page confirms a guest API for new partners: the CRM API with ``/customers`` was withdrawn in 2022, and
what follows it is named to partners only. So the operator names its base path, and every call on it is in
``GUEST_CALLS`` alone: UNCONFIRMED as a whole, in the shape of the withdrawn one. Orders are documented.
"""

from __future__ import annotations

from functools import lru_cache

from crmbridge.core.manifest import Call, Idempotency, IdempotencyKind, ObjectSpec
from crmbridge.core.operations import COMPOSED, LIMITED, NEVER, NOT_YET, DeleteLevel, Operation, Support
from crmbridge.core.records import Object

__all__ = ["DOCS", "GUEST_CALLS", "ORDERS", "ORDER_LIST", "guests_by_api", "guests_on_orders"]

DOCS = "https://doc.toasttab.com/openapi/orders/tag/Data-definitions/schema/Customer"
ORDERS = "/orders/v2/orders"
ORDER_LIST = "/orders/v2/ordersBulk"

GUEST_CALLS: dict[Operation, tuple[str, str]] = {
    Operation.CREATE: ("POST", ""),
    Operation.GET: ("GET", "/{{ id }}"),
    Operation.UPDATE: ("PATCH", "/{{ id }}"),
    Operation.SEARCH: ("POST", "/search"),
}
"""Operation -> method and what follows the guest base path. The one place to correct when Toast names them."""

_UNCONFIRMED = "unconfirmed by vendor: needs a guest base path that Toast has named to you"
_SET_PATH = (
    "Ask Toast for the base path of the guest API that your partner client may use and fill in 'Guest base path' "
    "in this connection's settings."
)
_BY_HAND = (
    "In Toast Web, open the privacy compliance dashboard and file an Individual Rights request for the deletion of "
    "this guest's e-mail address and phone number; Toast's privacy office acts on it. Keep its answer with this task."
)
_NO_WRITE = NOT_YET(
    "the guest base path of this connection is not set, and orders cannot be written", _SET_PATH
)
_NO_SEARCH = NOT_YET("orders cannot be searched by guest, and the guest base path is not set", _SET_PATH)
_NO_DELETE = NEVER(
    "no published call deletes or anonymises a guest; the restaurant files a request in Toast Web",
    DOCS,
    _BY_HAND,
)
_STATIC = LIMITED("from a table in the driver; Toast tells no schema of guests")
_NO_FEED = NOT_YET("webhooks and polling for changes come in a later version")
_GUESTS_ONLY = "this driver is for guests only"


def _absent(support: Support, native: str = "none") -> ObjectSpec:
    return ObjectSpec(native=native, operations=dict.fromkeys(Operation, support))


_OTHERS = {
    Object.LEAD: _absent(NEVER("Toast has no leads; create a customer", DOCS)),
    Object.DEAL: _absent(NOT_YET(f"an order could be read as a deal; {_GUESTS_ONLY}"), "order"),
    Object.APPOINTMENT: _absent(
        NOT_YET(f"a reservation is an order without items that approved partners may post; {_GUESTS_ONLY}"),
        "order",
    ),
    Object.CASE: _absent(NEVER("Toast has no cases", DOCS)),
    Object.NOTE: _absent(
        NEVER("Toast has no notes; the notes of a delivery are the guest's own words", DOCS)
    ),
    Object.ACTIVITY: _absent(NEVER("Toast keeps no calls or chats", DOCS)),
}


@lru_cache(maxsize=64)
def guests_by_api(path: str) -> dict[Object, ObjectSpec]:
    """The objects where Toast has named a guest API with this base path."""
    calls = {
        operation: Call(method=method, path=path + rest) for operation, (method, rest) in GUEST_CALLS.items()
    }
    for operation in (Operation.CREATE, Operation.UPDATE):
        calls[operation] = Call(
            method=calls[operation].method, path=calls[operation].path, body="{{ record }}"
        )
    calls[Operation.SEARCH] = Call(
        method=calls[Operation.SEARCH].method,
        path=calls[Operation.SEARCH].path,
        # A search by phone and e-mail, and by POST: no person stands in a URL.
        body={"query": {name: f"{{{{ filter.{name} }}}}" for name in ("email", "phone", "phoneCountryCode")}},
    )
    guest = ObjectSpec(
        native="guest",
        path=path,
        id_field="guid",
        updated_field="modifiedDate",
        natural_keys=("email", "phone"),
        required=("firstName",),
        operations={
            Operation.DESCRIBE: _STATIC,
            Operation.LOOKUP: COMPOSED("searches by phone and by e-mail, compared exactly"),
            Operation.SEARCH: LIMITED(f"by e-mail or phone; {_UNCONFIRMED}"),
            Operation.GET: LIMITED(_UNCONFIRMED),
            Operation.LIST: NOT_YET(
                "no page tells how guests are listed; without a guest base path, orders are"
            ),
            Operation.CREATE: LIMITED(f"needs a first name and an e-mail or a phone; {_UNCONFIRMED}"),
            Operation.UPDATE: LIMITED(_UNCONFIRMED),
            Operation.UPSERT: COMPOSED(
                f"a search by e-mail or phone, then an update or a create; {_UNCONFIRMED}"
            ),
            Operation.DELETE: LIMITED(f"never hard: redacts the guest and marks it inactive; {_UNCONFIRMED}"),
            Operation.ERASE: LIMITED(f"never hard: redacts the guest and marks it inactive; {_UNCONFIRMED}"),
            Operation.CHANGES: _NO_FEED,
        },
        calls=calls,
        delete_level=DeleteLevel.REDACTED,
        erase_level=DeleteLevel.REDACTED,
        # The withdrawn API took the id from its client; ours is made from the mark. Whether a new guest is found at
        # once is UNCONFIRMED, so a look-up after an unknown outcome waits a little.
        idempotency=Idempotency(kind=IdempotencyKind.EXTERNAL_ID, field="guid", search_lag_seconds=10),
        doubts={
            Operation.CREATE: "nobody stands under our id, and the guest has no e-mail and no phone, or another guest "
            "has all of the values"
        },
    )
    return {Object.CUSTOMER: guest, **_OTHERS}


def guests_on_orders() -> dict[Object, ObjectSpec]:
    """The objects without a guest API: the copies of guests on take-out and delivery orders, to read."""
    guest = ObjectSpec(
        native="customer of an order",
        path=ORDERS,
        updated_field="modifiedDate",
        operations={
            Operation.DESCRIBE: _STATIC,
            Operation.GET: COMPOSED("reads the order on which the guest stands"),
            Operation.LIST: LIMITED(
                "the guests of take-out and delivery orders changed in the last 30 days, each page newest first; "
                "a guest of several pages comes on each"
            ),
            **dict.fromkeys((Operation.LOOKUP, Operation.SEARCH), _NO_SEARCH),
            **dict.fromkeys((Operation.CREATE, Operation.UPDATE, Operation.UPSERT), _NO_WRITE),
            **dict.fromkeys((Operation.DELETE, Operation.ERASE), _NO_DELETE),
            Operation.CHANGES: _NO_FEED,
        },
    )
    return {Object.CUSTOMER: guest, **_OTHERS}
