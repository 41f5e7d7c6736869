"""HubSpot's search over emulated rows: operators, groups, sorts, offsets and caps.

https://developers.hubspot.com/docs/guides/api/crm/search: at most 5 groups of 6 filters, 18 in all, one sort, 200 rows
a page, 10,000 rows a search, bodies of 3,000 characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

__all__ = ["SearchRefused", "chosen", "page_of"]

SHARED_CODES = ("1", "971", "44", "49", "33")


class SearchRefused(Exception):
    """The search is not accepted; the text is HubSpot's message."""


def chosen(body: dict[str, Any], size: int) -> Callable[[dict[str, Any]], bool]:
    """Whether a row's properties are asked for. Raises SearchRefused."""
    groups = [group.get("filters") or [] for group in body.get("filterGroups") or []]
    if size > 3000:
        raise SearchRefused("The request body exceeds 3000 characters")
    if len(groups) > 5 or any(len(group) > 6 for group in groups) or sum(map(len, groups)) > 18:
        raise SearchRefused("Too many filters: at most 5 groups of 6 filters and 18 in all")
    if len(body.get("sorts") or []) > 1:
        raise SearchRefused("Only one sort is supported")
    for one in (one for group in groups for one in group):
        if str(one.get("value", "")).count('"') % 2:
            raise SearchRefused(f"Filter value {one['value']} has mismatched quotation marks")
    words = str(body.get("query") or "").casefold().split()

    def accepts(found: dict[str, Any]) -> bool:
        if words:
            text = " ".join(str(value) for value in found.values()).casefold()
            if not all(word in text for word in words):
                return False
        return not groups or any(all(_holds(one, found) for one in group) for group in groups)

    return accepts


def _holds(one: dict[str, Any], found: dict[str, Any]) -> bool:
    value = found.get(one["propertyName"])
    operator, wanted = one["operator"], one.get("value")
    if operator in ("HAS_PROPERTY", "NOT_HAS_PROPERTY"):
        return (value not in (None, "")) is (operator == "HAS_PROPERTY")
    if value in (None, ""):
        return operator in ("NEQ", "NOT_IN", "NOT_CONTAINS_TOKEN")
    if operator in ("EQ", "NEQ"):
        return (_same(value) == _same(wanted)) is (operator == "EQ")
    if operator in ("IN", "NOT_IN"):
        return (str(value).casefold() in map(str, one.get("values") or [])) is (operator == "IN")
    if operator in ("CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
        pattern = re.escape(str(wanted).casefold()).replace(r"\*", ".*")
        tokens = re.split(r"[\s,;]+", str(value).casefold())
        return any(re.fullmatch(pattern, token) for token in tokens) is (operator == "CONTAINS_TOKEN")
    left, right = order_of(value), order_of(wanted)
    compared = {"LT": left < right, "LTE": left <= right, "GT": left > right, "GTE": left >= right}
    if operator in compared:
        return compared[operator]
    if operator == "BETWEEN":
        return right <= left <= order_of(one.get("highValue"))
    raise SearchRefused(f"Unknown operator {operator}")


def _same(value: Any) -> Any:
    text = str(value).strip()
    return str(_milliseconds(text) or text.casefold())


def _milliseconds(text: str) -> int | None:
    if re.fullmatch(r"\d{4}-\d\d-\d\dT.*", text):
        moment = datetime.fromisoformat(text)
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)
    return None


def order_of(value: Any) -> tuple[int, float, str]:
    """Numbers and moments by size, texts after them."""
    text = "" if value is None else str(value)
    moment = _milliseconds(text)
    if moment is not None:
        return 0, float(moment), ""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text.casefold()


def page_of(
    rows: Iterable[tuple[Any, dict[str, Any]]], body: dict[str, Any]
) -> tuple[int, list[tuple[Any, dict[str, Any]]], str]:
    """Total, one page, and the offset of the next. Raises SearchRefused beyond 10,000 rows."""
    found = list(rows)
    for sort in body.get("sorts") or []:
        name, is_down = sort["propertyName"], sort.get("direction") == "DESCENDING"
        found.sort(key=lambda pair: order_of(pair[1].get(name)), reverse=is_down)
    start, limit = int(body.get("after") or 0), int(body.get("limit") or 10)
    if limit > 200:
        raise SearchRefused("The limit must be at most 200")
    if start + limit > 10_000:
        raise SearchRefused("The search has a limit of 10,000 rows")
    end = start + limit
    return len(found), found[start:end], str(end) if end < len(found) else ""


def local_number(phone: Any) -> str:
    """A number as the calculated phone properties have it: area code and local number."""
    text = str(phone or "")
    digits = re.sub(r"\D", "", text)
    code = next((code for code in SHARED_CODES if text.startswith("+") and digits.startswith(code)), "")
    return digits[len(code) :].lstrip("0")
