"""What a request said is hidden from the provider's words: all values of a batch, at a cost that stays low."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.driver import Access
from crmbridge.core.errors import CrmError
from crmbridge.core.manifest import Auth, AuthKind, Manifest
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.toolkit.exchange import HttpDriver
from crmbridge.toolkit.hiding import hide_texts, sent_texts


class Acme(HttpDriver):
    MANIFEST = Manifest(
        slug="acme",
        display_name="Acme",
        api_version="1",
        pages=(),
        read_on="2026-11-25",
        auth=Auth(kind=AuthKind.BEARER, secret="token"),
        base_url="https://acme.example.com",
        objects={},
    )

    def bare_texts(self, request: HttpRequest) -> list[str]:
        return ["Bare Words"]


class Echo:
    """A provider that refuses, and repeats what it is told to."""

    def __init__(self, said: Any) -> None:
        self.said = said

    async def send(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=400, headers={}, body=msgspec.json.encode({"message": self.said}))


def record(number: int) -> dict[str, Any]:
    return {
        "name": f"Mariam Number{number}",
        "street": f"{number} Palm Grove Lane",
        "note": f"asked for villa {number}\nthen for garden {number}x",
        "budget": 1_000_000 + number,
    }


async def refusal_of(said: str, records: list[dict[str, Any]]) -> CrmError:
    driver = Acme(Access(settings={}, transport=Echo(said), secrets={"token": Secret("sesame-0001")}))
    request = HttpRequest(method="POST", url="/batch", json={"inputs": records})
    with pytest.raises(CrmError) as caught:
        await driver.exchange(request, operation="create", is_write=True)
    return caught.value


@pytest.mark.parametrize("number", [0, 499, 600, 1_999])
async def test_refusal_when_it_echoes_any_record_of_a_batch_then_none_of_its_values_is_shown(
    number: int,
) -> None:
    records = [record(place) for place in range(2_000)]
    values = [str(value) for value in record(number).values()]
    error = await refusal_of(f"Row refused: {'; '.join(values)} and bare words.", records)
    shown = str(error.to_dict()) + repr(error)
    assert "Row refused: [value]; [value]" in shown
    for value in "\n".join(values).splitlines():
        assert value.casefold() not in shown.casefold()
    assert "bare words" not in shown


def test_texts_when_a_request_has_query_form_tree_and_bytes_then_values_and_lines_of_all() -> None:
    request = HttpRequest(
        method="POST",
        url="/x",
        query={"a": " first "},
        form={"b": "second"},
        body=b'{"c": ["third", {"d": 4444, "e": true, "f": "one\\ntwo lines", "g": "no"}]}',
    )
    assert set(sent_texts(request)) == {
        "first",
        "second",
        "third",
        "4444",
        "one\ntwo lines",
        "one",
        "two lines",
    }


def test_texts_when_the_body_is_no_json_then_the_rest_of_the_request() -> None:
    assert list(sent_texts(HttpRequest(method="PUT", url="/x", query={"a": "abc"}, body=b"\xff"))) == ["abc"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ANN lee is taken", "[value] is taken"),
        ("annette and joann stay", "annette and joann stay"),
        ("(Ann),+1 415 555.", "([value]),[value]."),
        ("Ann Lee Ann", "[value] [value]"),
        ("İstanbul, Ann", "İstanbul, [value]"),
        ("Straße", "[value]"),
        ("", ""),
    ],
)
def test_hide_when_values_are_whole_words_then_the_longest_goes_first(text: str, shown: str) -> None:
    hide = hide_texts(["Ann", "Ann Lee", "+1 415 555", "Straße", "x", ""])
    assert hide(text) == shown


def test_hide_when_a_value_runs_over_the_cut_then_no_part_of_it_is_shown() -> None:
    secret = "orange " * 100
    shown = hide_texts([secret.strip()])("a " * 1_990 + secret)
    assert "orange" not in shown and shown.endswith("[value]")


@given(st.lists(st.text(min_size=3, max_size=12), max_size=6), st.text(max_size=40))
def test_hide_when_any_values_then_none_stands_alone_in_what_is_shown(values: list[str], other: str) -> None:
    hide = hide_texts(values)
    for value in values:
        left, found, right = hide(f"({value}) {other}").partition("[value]")
        assert found and not left.strip("(")
        assert value not in left
        assert right or not other


def test_hide_when_a_batch_grows_then_its_cost_per_value_does_not() -> None:
    def seconds(count: int) -> float:
        values = [f"Somebody {number} of Elm Street" for number in range(count)]
        text = "Somebody refused: " + "Somebody 7 of Elm Street, " * 100
        began = time.perf_counter()
        hide = hide_texts(values)
        for _ in range(20):
            hide(text)
        return time.perf_counter() - began

    seconds(1_000)
    small, large = min(seconds(1_000) for _ in range(3)), min(seconds(16_000) for _ in range(3))
    assert large < small * 64  # 16 times the values; squares would be 256 times the time


def test_hide_when_never_called_then_the_values_are_never_read() -> None:
    def values() -> Any:
        raise AssertionError("read")
        yield ""

    assert callable(hide_texts(values()))
