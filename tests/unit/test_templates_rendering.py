"""Templates: what they render, and what hostile ones get."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crmbridge.toolkit.templates import ABSENT, Template, TemplateError, compile_template

NAMES = ("record", "settings", "id", "links")
SCOPE: dict[str, Any] = {
    "id": "a/b",
    "record": {
        "email": " Jane@Example.com ",
        "phone": "050 123 4567",
        "age": 41,
        "price": 10.0,
        "is_new": True,
        "nothing": None,
        "empty": "",
        "tags": ["a", "b", None, "c"],
        "items": [{"name": "first"}, {"name": "second"}],
        "address": {"city": "Dubai"},
        "custom-field": 1,
        "Field Name": 2,
        "start": "2026-01-31T10:00:00+04:00",
    },
    "settings": {"site": "s1"},
}


def _render(tree: Any, scope: dict[str, Any] = SCOPE) -> Any:
    return compile_template(tree, names=NAMES, place="body").render(scope)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{ record.age }}", 41),
        ("{{record.age}}", 41),
        ("{{ record.is_new }}", True),
        ("{{ record.address }}", {"city": "Dubai"}),
        ("{{ record.items.0.name }}", "first"),
        ("{{ record.items.1.name }}", "second"),
        ("{{ record.items.9.name }}", ABSENT),
        ("{{ record.custom-field }}", 1),
        ("{{ record.'Field Name' }}", 2),
        ("{{ record.nothing }}", None),
        ("{{ record.missing }}", ABSENT),
        ("{{ record.missing | lower }}", ABSENT),
        ("{{ record.email.host }}", ABSENT),
        ("{{ record.email | trim | lower }}", "jane@example.com"),
        ("{{ record.email | trim | upper }}", "JANE@EXAMPLE.COM"),
        ("{{ record.missing | default('x') }}", "x"),
        ("{{ record.nothing | default(7) }}", 7),
        ("{{ record.empty | default(true) }}", True),
        ("{{ record.age | default(null) }}", 41),
        ("{{ record.age | string }}", "41"),
        ("{{ record.price | string }}", "10"),
        ("{{ record.price | integer }}", 10),
        ("{{ '12' | integer }}", 12),
        ("{{ '12.5' | number }}", 12.5),
        ("{{ 'Yes' | boolean }}", True),
        ("{{ 'off' | boolean }}", False),
        ("{{ record.start | date }}", "2026-01-31"),
        ("{{ record.start | date('%d/%m/%Y %H:%M') }}", "31/01/2026 10:00"),
        ("{{ '2026-01-31' | date('%m') }}", "01"),
        ("{{ record.tags | join }}", "a,b,c"),
        ("{{ record.tags | join('; ') }}", "a; b; c"),
        ("{{ 'a, b,,c' | split }}", ["a", "b", "c"]),
        ("{{ record.tags | first }}", "a"),
        ("{{ record.tags | last }}", "c"),
        ("{{ record.phone | e164('AE') }}", "+971501234567"),
        ("{{ '+971 50 123 4567' | e164 }}", "+971501234567"),
        ("{{ id | urlencode }}", "a%2Fb"),
        ("Hello {{ record.age }}, {{ record.missing }}!", "Hello 41, !"),
        ("{{ record.missing }} {{ record.gone }}", ABSENT),
        ("{{ record.is_new }}/{{ record.nothing }}", "true/"),
        ("it's {{ record.age }} o'clock", "it's 41 o'clock"),
        ("{{ '{{' }}x{{ '}}' }}", "{{x}}"),
        ("}} alone", "}} alone"),
        ("{ single }", "{ single }"),
    ],
)
def test_render_when_text_has_references_then_value(text: str, value: Any) -> None:
    rendered = _render(text)
    assert rendered == value and type(rendered) is type(value)


def test_render_when_values_are_missing_then_keys_and_items_are_dropped() -> None:
    tree = {
        "a": "{{ record.missing }}",
        "b": {"c": "{{ record.missing }}", "d": 1},
        "list": ["{{ record.age }}", "{{ record.missing }}"],
        "n": None,
        "f": 1.5,
    }
    assert _render(tree) == {"b": {"d": 1}, "list": [41], "n": None, "f": 1.5}


def test_render_when_value_holds_json_or_braces_then_it_stays_data() -> None:
    hostile = '"}, {{ settings.site }} {"x": "'
    assert _render({"a": "x {{ id }}"}, {"id": hostile}) == {"a": f"x {hostile}"}


def test_references_when_compiled_then_all_paths() -> None:
    template = compile_template({"a": "{{ record.email | lower }}", "b": ["x {{ id }}"]}, names=NAMES)
    assert template.references == {"record.email", "id"}


@pytest.mark.parametrize(
    "text",
    [
        "{{ __class__ }}",
        "{{ record.__dict__ }}",
        "{{ record.__class__.__mro__ }}",
        "{{ record.'__class__' }}",
        "{{ ''.__class__ }}",
        "{{ secrets.api_key }}",
        "{{ os.environ }}",
        "{{ record | evil }}",
        "{{ record | __import__('os') }}",
        "{{ record | lower() | }}",
        "{{ record.email",
        "{{ record.email }",
        "{{ 'record }}",
        "{{ }}",
        "{{ | lower }}",
        "{{ . }}",
        "{{ record. }}",
        "{{ record..email }}",
        "{{ record.email lower }}",
        "{{ record[0] }}",
        "{{ record.email.lower() }}",
        "{{ record.age + 1 }}",
        "{{ record.age * 1000000000 }}",
        "{{ record.email | default }}",
        "{{ record.email | default(1, 2) }}",
        "{{ record.email | default(record.age) }}",
        "{{ record.email | default(1 }}",
        "{{ record.email | default(1,, 2) }}",
        "{{ record.email | lower(1) }}",
        "{{ record.tags | join(1) }}",
        "{{ record." + ".".join("a" * 20) + " }}",
        "{{ record.email " + "| lower " * 20 + "}}",
        "{{ record." + "a" * 3000 + " }}",
        "{{ {{ record.email }} }}",
        "{% for x in record %}{{ x }}{% endfor %}{{ x }}",
        "{{ lambda: 0 }}",
        "{{ record.email if 1 else 2 }}",
    ],
)
def test_compile_when_template_is_hostile_or_wrong_then_error_names_the_place(text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        compile_template({"contact": {"email": [text]}}, names=NAMES, place="body")
    assert caught.value.place == "body.contact.email[0]"
    assert caught.value.problem


def _nested(depth: int, leaf: Any = "x") -> Any:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


@pytest.mark.parametrize(
    "tree",
    [
        _nested(5_000),
        _nested(21),
        ["x"] * 2_001,
        [[]] * 40_000,
        "x" * 70_000,
        {"k" * 70_000: 1},
        ["é" * 40_000],
        {1: "x"},
        [object()],
        ["{{ id }}" * 20_000],
    ],
    ids=[
        "very deep",
        "deep",
        "leaves",
        "empty lists",
        "long",
        "long key",
        "bytes",
        "key",
        "object",
        "references",
    ],
)
def test_compile_when_tree_is_over_a_cap_then_template_error(tree: Any) -> None:
    started = time.process_time()
    with pytest.raises(TemplateError):
        compile_template(tree, names=NAMES)
    assert time.process_time() - started < 5


class Trap:
    """An object in the scope: templates must not look at its attributes."""

    def __getattr__(self, name: str) -> str:
        raise AssertionError(f"attribute {name} was read")


def test_render_when_scope_holds_an_object_then_its_attributes_are_not_read() -> None:
    template = compile_template("{{ record.name }}", names=NAMES)
    assert template.render({"record": Trap()}) is ABSENT


def test_render_when_secret_is_not_in_the_scope_then_absent() -> None:
    assert _render({"key": "{{ settings.api_key }}"}) == {}
    with pytest.raises(TemplateError, match="missing"):
        _render({"key": "{{ settings.api_key | required }}"})


@pytest.mark.parametrize(
    "text",
    [
        "{{ record.email | integer }}",
        "{{ record.email | number }}",
        "{{ record.email | boolean }}",
        "{{ record.email | date }}",
        "{{ record.start | date('%x' ) }}",
        "{{ record.phone | e164 }}",
        "{{ record.email | e164('AE') }}",
        "{{ record.address | lower }}",
        "{{ record.items | join }}",
        "{{ record.age | split('') }}",
        "{{ record.missing | required }}",
        "{{ record.empty | required }}",
        "x {{ record.address }}",
        "{{ 12.5 | integer }}",
        "{{ 'nan' | number }}",
        "{{ '1e999' | number }}",
        "{{ true | number }}",
    ],
)
def test_render_when_value_does_not_suit_then_error_without_the_value(text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        _render({"a": text})
    assert caught.value.place == "body.a"
    assert "Jane" not in str(caught.value) and "Dubai" not in str(caught.value)


def test_render_when_result_grows_over_a_megabyte_then_template_error() -> None:
    big = {"record": {"x": "y" * 10_000, "tree": [["z"] * 100] * 100}}
    for leaf in ("{{ record.x }}", "{{ record.tree }}", "a {{ record.x }} {{ record.x }}"):
        with pytest.raises(TemplateError, match="larger"):
            _render([leaf] * 200, big)


def test_render_when_scope_is_nested_too_deep_then_template_error() -> None:
    with pytest.raises(TemplateError, match="deep"):
        _render("{{ record }}", {"record": _nested(900)})


def _path(text: str, scope: dict[str, Any]) -> str:
    return compile_template(text, names=NAMES, place="path").render_path(scope)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("7", "/leads/7/notes"),
        (7, "/leads/7/notes"),
        ("a/b", "/leads/a%2Fb/notes"),
        ("../admin", "/leads/..%2Fadmin/notes"),
        ("x?y=1#z", "/leads/x%3Fy%3D1%23z/notes"),
        ("a\r\nHost: x", "/leads/a%0D%0AHost%3A%20x/notes"),
        ("%2e%2e", "/leads/%252e%252e/notes"),
        ("jane@example.com", "/leads/jane%40example.com/notes"),
        ("ü", "/leads/%C3%BC/notes"),
        ("\ud800", "/leads/%3F/notes"),
    ],
)
def test_render_path_when_value_is_hostile_then_one_quoted_segment(value: Any, path: str) -> None:
    assert _path("/leads/{{ id }}/notes", {"id": value}) == path


@pytest.mark.parametrize("value", ["", " ", ".", "..", " .. ", None, ABSENT, ["a"], {"a": 1}])
def test_render_path_when_value_would_change_the_path_then_template_error(value: Any) -> None:
    with pytest.raises(TemplateError):
        _path("/leads/{{ id }}", {"id": value})


def test_render_path_when_template_is_no_text_then_template_error() -> None:
    with pytest.raises(TemplateError, match="one text"):
        compile_template(["/x"], names=NAMES).render_path({})


def _headers(value: Any) -> dict[str, str]:
    template = compile_template({"X-Id": "{{ id }}", "X-Two": "a {{ id }}"}, names=NAMES, place="headers")
    return template.render_headers({"id": value})


@pytest.mark.parametrize(
    "value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "a\x7f", "日本", ["a"], {"a": "b"}]
)
def test_render_headers_when_value_could_split_them_then_template_error(value: Any) -> None:
    with pytest.raises(TemplateError):
        _headers(value)


def test_render_headers_when_scalars_then_texts_and_missing_dropped() -> None:
    assert _headers(7) == {"X-Id": "7", "X-Two": "a 7"}
    assert _headers(True) == {"X-Id": "true", "X-Two": "a true"}
    assert _headers(ABSENT) == {}


def test_render_headers_when_constant_holds_a_line_break_then_template_error() -> None:
    with pytest.raises(TemplateError):
        compile_template({"X": "a\r\nb"}, names=NAMES, place="headers").render_headers({})


def test_render_query_when_lists_and_missing_then_repeated_and_dropped() -> None:
    tree = {"tag": "{{ record.tags }}", "q": "{{ record.age }}", "x": "{{ record.missing }}", "n": None}
    template = compile_template(tree, names=NAMES, place="query")
    assert template.render_query(SCOPE | {"record": SCOPE["record"] | {"tags": ["a", 1]}}) == {
        "tag": ["a", "1"],
        "q": "41",
    }
    with pytest.raises(TemplateError):
        compile_template({"q": "{{ record }}"}, names=NAMES).render_query(SCOPE)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
pieces = st.sampled_from(
    [
        "{{",
        "}}",
        " ",
        "record",
        "id",
        ".",
        "|",
        "(",
        ")",
        ",",
        "'",
        '"',
        "0",
        "12.5",
        "-",
        "%",
        "x",
        "null",
        "lower",
        "upper",
        "trim",
        "string",
        "integer",
        "number",
        "boolean",
        "first",
        "last",
        "e164",
        "urlencode",
        "default",
        "required",
        "date",
        "join",
        "split",
        "date('%Y')",
        "join('-')",
        "e164('AE')",
        "{{ record |",
        "{{ record }}",
        "{{ id | integer }}",
        "{{ record.a | date }}",
        "{{ record | join }}",
        "\r\n",
        "é",
        "__x",
    ]
)
templates = st.lists(pieces | st.text(max_size=4), max_size=12).map("".join)


@settings(max_examples=400)
@given(templates, json_values, json_values)
def test_render_when_anything_then_only_template_errors_and_quickly(text: str, one: Any, two: Any) -> None:
    started = time.process_time()
    try:
        template: Template = compile_template({"a": [text]}, names=NAMES)
        template.render({"record": one, "id": two})
        compile_template(text, names=NAMES).render_path({"record": one, "id": two})
        compile_template({"h": text}, names=NAMES).render_headers({"record": one, "id": two})
        compile_template({"q": text}, names=NAMES).render_query({"record": one, "id": two})
    except TemplateError:
        pass
    assert time.process_time() - started < 5


@settings(max_examples=200)
@given(
    st.sampled_from(
        [
            "boolean",
            "date",
            "e164",
            "first",
            "integer",
            "join",
            "last",
            "lower",
            "number",
            "required",
            "split",
            "string",
            "trim",
            "upper",
            "urlencode",
        ]
    ),
    st.sampled_from(["", "('%Y')", "('AE')", "('')", "('%')", "('%%')", "('%Q')"]),
    json_values
    | st.integers(-(10**30), 10**30)
    | st.dates().map(str)
    | st.datetimes().map(str)
    | st.text("0123456789+-. "),
)
def test_filters_when_any_value_then_only_template_errors(name: str, argument: str, value: Any) -> None:
    try:
        compile_template(f"{{{{ id | {name}{argument} }}}}", names=NAMES).render({"id": value})
    except TemplateError:
        pass


@given(st.text(max_size=50))
def test_render_path_when_any_text_then_still_three_segments(value: str) -> None:
    try:
        path = _path("/a/{{ id }}/b", {"id": value})
    except TemplateError:
        assert value.strip() in ("", ".", "..")
        return
    assert path.isascii() and path.count("/") == 3 and "?" not in path and "#" not in path
