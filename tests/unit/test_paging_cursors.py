"""Paging: the five ways, hostile cursors, and providers that do not come to an end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.errors import CrmError, UnexpectedResponse, ValidationError
from crmbridge.core.manifest import Paging, PagingKind
from crmbridge.core.wire import HttpResponse
from crmbridge.toolkit.paging import Asked, next_cursor, page_params, page_size

URL = "https://crm.example.com/v1/leads"


def following(
    paging: Paging, tree: Any, *, count: int = 3, cursor: str = "", limit: int = 3, link: str = ""
) -> str:
    response = HttpResponse.of_json(200, tree, {"link": link} if link else None)
    return next_cursor(paging, response, tree, Asked(count=count, cursor=cursor, limit=limit, url=URL))


CURSOR = Paging(kind=PagingKind.CURSOR, cursor_param="after", size_param="limit", next="paging.next")
PAGE = Paging(kind=PagingKind.PAGE, cursor_param="page", size_param="per_page")
OFFSET = Paging(kind=PagingKind.OFFSET, cursor_param="offset", size_param="limit")
LINK = Paging(kind=PagingKind.LINK, size_param="limit")


def test_page_size_when_wished_then_inside_the_providers_limits() -> None:
    assert [page_size(CURSOR, wish) for wish in (0, 1, 50, 100, 5000)] == [50, 1, 50, 100, 100]


def test_cursor_when_given_then_sent_and_followed() -> None:
    assert page_params(CURSOR, "", 10) == {"limit": "10"}
    assert page_params(CURSOR, "abc", 10) == {"limit": "10", "after": "abc"}
    assert following(CURSOR, {"paging": {"next": "def"}}) == "def"
    assert following(CURSOR, {"paging": {"next": 42}}) == "42"
    assert following(CURSOR, {"paging": {"next": None}}) == ""
    assert following(CURSOR, {}) == ""


def test_cursor_when_it_does_not_move_on_then_unexpected() -> None:
    with pytest.raises(UnexpectedResponse):
        following(CURSOR, {"paging": {"next": "abc"}}, cursor="abc")


@pytest.mark.parametrize(
    ("count", "cursor", "expected"), [(3, "", "2"), (3, "2", "3"), (2, "", ""), (0, "7", "")]
)
def test_page_when_full_or_short_then_next_or_end(count: int, cursor: str, expected: str) -> None:
    assert following(PAGE, {}, count=count, cursor=cursor) == expected


def test_page_when_first_page_is_zero_then_counted_from_there() -> None:
    zero = Paging(kind=PagingKind.PAGE, cursor_param="page", first_page=0)
    assert page_params(zero, "", 5) == {"page": "0"}
    assert following(zero, {}) == "1"


def test_page_when_next_is_declared_then_it_decides() -> None:
    told = Paging(kind=PagingKind.PAGE, cursor_param="page", next="next")
    assert following(told, {"next": True}, count=1) == "2"
    assert following(told, {"next": False}, count=3) == ""
    assert following(told, {"next": 7}, cursor="2") == "7"
    with pytest.raises(UnexpectedResponse):
        following(told, {"next": 2}, cursor="2")


def test_offset_when_pages_are_short_of_the_wish_then_counted_by_records() -> None:
    assert following(OFFSET, {}, count=3, cursor="6") == "9"
    more = Paging(kind=PagingKind.OFFSET, cursor_param="offset", next="more")
    assert following(more, {"more": True}, count=2, cursor="6") == "8"


def test_link_when_header_or_body_then_only_the_query_is_kept() -> None:
    header = f'<{URL}?limit=3&page=9>; rel="prev", <{URL}?limit=3&after=x%20y>; rel="next"'
    cursor = following(LINK, [], link=header)
    assert cursor == "limit=3&after=x%20y"
    assert page_params(LINK, cursor, 3) == {"limit": ["3"], "after": ["x y"]}
    body = Paging(kind=PagingKind.LINK, next="links.next")
    assert following(body, {"links": {"next": "/v1/leads?page=2"}}) == "page=2"
    assert following(body, {"links": {"next": None}}) == ""


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/v1/leads?a=b",
        "http://crm.example.com/v1/leads?a=b",
        "https://crm.example.com:8443/v1/leads?a=b",
        "https://crm.example.com/v1/admin?a=b",
        "https://crm.example.com@evil.example/v1/leads?a=b",
        "//evil.example/v1/leads?a=b",
        "../admin?a=b",
        "https://crm.example.com/v1/leads",
        "file:///etc/passwd?a=b",
    ],
)
def test_link_when_it_leads_elsewhere_then_unexpected(link: str) -> None:
    with pytest.raises(UnexpectedResponse):
        following(LINK, [], link=f'<{link}>; rel="next"')


@pytest.mark.parametrize("cursor", ["-1", "1e9", "9" * 12, "٣", "1;drop", " 1", "x"])
@pytest.mark.parametrize("paging", [PAGE, OFFSET])
def test_number_cursor_when_hostile_then_validation_error(paging: Paging, cursor: str) -> None:
    with pytest.raises(ValidationError) as caught:
        page_params(paging, cursor, 10)
    assert caught.value.fields[0].field == "cursor"


def test_cursor_when_too_long_then_validation_error() -> None:
    with pytest.raises(ValidationError):
        page_params(CURSOR, "x" * 4001, 10)


@given(
    st.sampled_from([CURSOR, PAGE, OFFSET, LINK]),
    st.text(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=10),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["paging", "next", "a"]), inner)
        ),
        max_leaves=6,
    ),
    st.text(st.characters(codec="ascii"), max_size=80),
)
def test_next_cursor_when_answer_is_hostile_then_text_or_our_error(
    paging: Paging, cursor: str, tree: Any, link: str
) -> None:
    try:
        assert isinstance(following(paging, tree, cursor=cursor, link=link), str)
    except CrmError:
        pass
