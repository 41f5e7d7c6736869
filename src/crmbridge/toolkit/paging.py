"""How a list goes on: the five ways of manifest.Paging, and the cursor in both directions.

A cursor comes back from the caller, so it is checked as hostile: it can choose a page, never an address.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import msgspec

from crmbridge.core.errors import FieldError, UnexpectedResponse, ValidationError
from crmbridge.core.manifest import Paging, PagingKind
from crmbridge.core.operations import Outcome
from crmbridge.core.wire import HttpResponse
from crmbridge.toolkit.extraction import compile_path

__all__ = ["Asked", "next_cursor", "page_params", "page_size"]

MAX_CURSOR = 4000
_LINK = re.compile(r"<([^<>]{1,4000})>\s*;[^,]{0,500}?\brel\s*=\s*\"?next\b", re.IGNORECASE)


def page_size(paging: Paging, limit: int) -> int:
    """The wished page size inside the provider's own limits, at least 1."""
    return max(1, min(limit or paging.size, paging.max_size))


def page_params(paging: Paging, cursor: str, limit: int) -> dict[str, Any]:
    """The query parameters of one page. Raises ValidationError for a cursor that we cannot have given."""
    if len(cursor) > MAX_CURSOR:
        raise _bad_cursor()
    params: dict[str, Any] = {}
    if paging.size_param:
        params[paging.size_param] = str(page_size(paging, limit))
    if paging.kind is PagingKind.LINK and cursor:
        return dict(parse_qs(cursor, keep_blank_values=True))
    if paging.kind is PagingKind.CURSOR and cursor:
        params[paging.cursor_param] = cursor
    elif paging.kind is PagingKind.PAGE:
        params[paging.cursor_param] = str(_number(cursor, paging.first_page))
    elif paging.kind is PagingKind.OFFSET:
        params[paging.cursor_param] = str(_number(cursor, 0))
    return params


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The page that was asked for and how many records came. ``url`` is absolute: a next link must lead to
    the same place."""

    count: int
    cursor: str
    limit: int
    url: str


def next_cursor(paging: Paging, response: HttpResponse, tree: Any, asked: Asked) -> str:
    """The cursor after this page, empty on the last one.

    Raises UnexpectedResponse for a cursor that does not move on or leads elsewhere.
    """
    count, cursor, limit, url = asked.count, asked.cursor, asked.limit, asked.url
    found = _path(paging.next)(tree) if paging.next else None
    if paging.kind is PagingKind.NONE:
        return ""
    if paging.kind is PagingKind.LINK:
        return _link_cursor(found, response, url, cursor)
    if paging.kind is PagingKind.CURSOR:
        following = "" if found in (None, False) else str(found)
        if following and (following == cursor or len(following) > MAX_CURSOR):
            raise _bad_page("the provider answered a cursor that does not move on")
        return following
    here = _number(cursor, paging.first_page if paging.kind is PagingKind.PAGE else 0)
    step = 1 if paging.kind is PagingKind.PAGE else count
    has_more = bool(found) if paging.next else count >= page_size(paging, limit)
    if not has_more or count == 0:
        return ""
    if isinstance(found, int) and not isinstance(found, bool):
        if found <= here:
            raise _bad_page("the provider answered a page that does not move on")
        return str(found)
    return str(here + step)


def _link_cursor(found: Any, response: HttpResponse, url: str, cursor: str) -> str:
    link = found if isinstance(found, str) else ""
    if not link and (matched := _LINK.search(response.header("link"))):
        link = matched[1]
    if not link:
        return ""
    here, there = urlsplit(url), urlsplit(urljoin(url, link))
    if (here.scheme, here.netloc, here.path) != (there.scheme, there.netloc, there.path):
        raise _bad_page("the provider's next link leads to another address")
    if not there.query or there.query == cursor or len(there.query) > MAX_CURSOR:
        raise _bad_page("the provider's next link does not move on")
    return there.query


@lru_cache(maxsize=256)
def _path(expression: str) -> Callable[[Any], Any]:
    return compile_path(expression)


def _number(cursor: str, first: int) -> int:
    if not cursor:
        return first
    if not re.fullmatch(r"[0-9]{1,9}", cursor):
        raise _bad_cursor()
    return int(cursor)


def _bad_cursor() -> ValidationError:
    problem = FieldError("cursor", "is not a cursor of this list; start again without one")
    return ValidationError("The cursor is not one of ours.", fields=(problem,))


def _bad_page(problem: str) -> UnexpectedResponse:
    return UnexpectedResponse(f"A list cannot go on: {problem}.", outcome=Outcome.NOT_APPLIED)
