"""JMESPath with caps."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crmbridge.toolkit.extraction import PathError, compile_path

ANSWER = {
    "data": [
        {"id": 1, "name": "a", "tags": ["x", "y"], "properties": {"email": "a@example.com"}},
        {"id": 2, "name": "b", "tags": [], "properties": {"email": None}},
    ],
    "paging": {"next": {"after": "c2"}},
    "count": "2",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data[0].id", 1),
        ("data[].id", [1, 2]),
        ("data[-1].name", "b"),
        ("data[*].properties.email", ["a@example.com"]),
        ("data[?name=='b'].id | [0]", 2),
        ("data[?contains(tags, 'x')].id", [1]),
        ("data[?starts_with(name, 'a')].id", [1]),
        ("paging.next.after", "c2"),
        ("paging.missing.after", None),
        ("not_null(paging.cursor, paging.next.after)", "c2"),
        ("to_number(count)", 2),
        ("to_string(data[0].id)", "1"),
        ("length(data)", 2),
        ("join(',', data[].name)", "a,b"),
        ("keys(paging)", ["next"]),
        ("values(paging)[0].after", "c2"),
        (
            "data[].{id: id, email: properties.email}",
            [{"id": 1, "email": "a@example.com"}, {"id": 2, "email": None}],
        ),
        ("data[0].[id, name]", [1, "a"]),
        ("paging.cursor || paging.next.after", "c2"),
        ("data[:1].id", [1]),
        ('"count"', "2"),
        ("@", ANSWER),
    ],
)
def test_extract_when_path_suits_then_value(path: str, value: Any) -> None:
    assert compile_path(path)(ANSWER) == value


def test_extract_when_ten_fields_are_reshaped_then_inside_the_caps() -> None:
    fields = ", ".join(f"f{n}: properties.f{n}" for n in range(10))
    assert compile_path(f"data[*].{{{fields}}}")(ANSWER)[0]["f3"] is None


def test_compile_when_parentheses_are_many_then_harmless() -> None:
    assert compile_path("(" * 250 + "count" + ")" * 250)(ANSWER) == "2"


DOUBLING = "|".join(["[@,@]"] * 26) + "|to_string(@)"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "   ",
        "a" * 513,
        "data[",
        "data..id",
        "((((" * 50,
        "!" * 500 + "a",
        "[" * 200 + "a" + "]" * 200,
        DOUBLING,
        "|".join(["[@,@]"] * 7),
        "|".join(["[@,@][]"] * 8),
        "@ | {a:@,b:@} | {a:@,b:@} | {a:@,b:@} | {a:@,b:@} | {a:@,b:@} | {a:@,b:@} | {a:@,b:@}",
        "not_null([@,@,@,@,@,@,@,@,@] | [@,@,@,@,@,@,@,@])",
        ".".join("a" * 100),
        "sort_by(data, &id)",
        "map(&id, data)",
        "max_by(data, &id)",
        "reverse(data)",
        "merge(a, b)",
        "sort(data)",
        "eval('1')",
        "`not json",
        "a[?b=='" + "x" * 600 + "']",
    ],
)
def test_compile_when_path_is_wrong_or_over_a_cap_then_path_error_quickly(path: str) -> None:
    started = time.process_time()
    with pytest.raises(PathError) as caught:
        compile_path(path)
    assert time.process_time() - started < 5
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "path",
    [
        "length(missing)",
        "join(',', data)",
        "keys(count)",
        "to_number(@, @)",
        "data[::0]",
        "starts_with(data, 'a')",
    ],
)
def test_extract_when_answer_does_not_suit_then_path_error_without_content(path: str) -> None:
    with pytest.raises(PathError) as caught:
        compile_path(path)(ANSWER)
    assert "example.com" not in str(caught.value)


def test_extract_when_join_would_explode_then_path_error_quickly() -> None:
    answer = {"a": "x" * 100_000, "b": ["y"] * 100_000}
    started = time.process_time()
    with pytest.raises(PathError, match="join"):
        compile_path("join(a, b)")(answer)
    assert time.process_time() - started < 5


def test_extract_when_to_string_would_explode_then_path_error_quickly() -> None:
    answer = ["x" * 1_000] * 5_000
    started = time.process_time()
    with pytest.raises(PathError, match="to_string"):
        compile_path("[@,@]|[@,@]|[@,@]|to_string(@)")(answer)
    assert time.process_time() - started < 5


def test_extract_when_result_has_too_many_values_then_path_error_quickly() -> None:
    started = time.process_time()
    with pytest.raises(PathError, match="values"):
        compile_path("[@,@]|[@,@]|[@,@]|[@,@]|[@,@]|[@,@]")([1] * 100_000)
    assert time.process_time() - started < 5


def test_extract_when_number_text_is_endless_then_none() -> None:
    assert compile_path("to_number(@)")("9" * 100_000) is None


def test_extract_when_answer_is_very_deep_then_path_error_or_value() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(PathError):
        compile_path("to_string(@)")(deep)
    assert compile_path("[0][0]")(deep) is not None


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=15,
)
paths = st.lists(
    st.sampled_from(
        [
            "a",
            "b",
            "c",
            ".",
            "[]",
            "[*]",
            "[0]",
            "[?a==b]",
            "|",
            "@",
            "[@,@]",
            "{a:@}",
            "*",
            "!",
            "&&",
            "||",
            "(",
            ")",
            "length(@)",
            "keys(@)",
            "values(@)",
            "to_string(@)",
            "to_number(@)",
            "join(a,@)",
            "not_null(a,b)",
            "`1`",
            "contains(@,a)",
            "starts_with(a,b)",
            "'x'",
            "<",
            "==",
            ",",
            "[::2]",
            "[::-1]",
            "&a",
        ]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=500)
@given(paths | st.text(max_size=30), json_values)
def test_extract_when_anything_then_only_path_errors(path: str, answer: Any) -> None:
    try:
        compile_path(path)(answer)
    except PathError:
        pass
