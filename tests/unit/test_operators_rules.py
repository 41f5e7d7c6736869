"""The rules of sign-in: passwords, pauses, busy addresses, and where a form may come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.console.admission import (
    Flash,
    FormRefused,
    check_form,
    client_address,
    form_token,
    new_token,
    next_page,
    open_flash,
    sealed_flash,
)
from crmbridge.console.rendering import html_pattern, plain
from crmbridge.console.visit import link
from crmbridge.services.operators.model import Role
from crmbridge.services.operators.rules import (
    ADDRESS_BURST,
    IDLE_SECONDS,
    SESSION_SECONDS,
    Throttle,
    new_password,
    normal_email,
    password_problems,
    pause_after,
)


@pytest.mark.parametrize(
    ("password", "told"),
    [
        ("short pass", "at least 12"),
        ("x" * 201, "at most 200"),
        ("aaaaaaaaaaaaaaaa", "tried first"),
        ("abababababababab", "tried first"),
        ("abcdefghijklmnop", "tried first"),
        ("Password1234", "tried first"),
        ("mei.lin is my name 1", "name or e-mail"),
        ("here is Mei Lin again", "name or e-mail"),
        ("seven quiet\x00herons", "control"),
    ],
)
def test_password_when_weak_then_told_why(password: str, told: str) -> None:
    problems = password_problems(password, email="mei.lin@example.com", name="Mei Lin")
    assert any(told in problem for problem in problems), problems


@pytest.mark.parametrize("password", ["seven quiet herons wade", "zażółć gęślą jaźń", "9f2c-77aa-01bd-44"])
def test_password_when_long_enough_then_nothing_else_is_asked(password: str) -> None:
    assert password_problems(password, email="mei.lin@example.com", name="Mei") == []


def test_new_password_when_made_then_fits_the_rules_and_differs() -> None:
    made = {new_password() for _ in range(50)}
    assert len(made) == 50
    assert all(password_problems(each) == [] for each in made)


def test_pause_when_failures_grow_then_none_up_to_four_then_growing_to_a_quarter_of_an_hour() -> None:
    assert [pause_after(count) for count in range(5)] == [0] * 5
    pauses = [pause_after(count) for count in range(5, 40)]
    assert pauses[:5] == [30, 60, 120, 240, 480]
    assert pauses == sorted(pauses) and pauses[-1] == 900


def test_windows_when_read_then_twelve_hours_and_sixty_minutes() -> None:
    assert (SESSION_SECONDS, IDLE_SECONDS) == (43_200, 3_600)


def test_throttle_when_an_address_tries_a_lot_then_it_waits_and_others_do_not() -> None:
    now = [0.0]
    throttle = Throttle(burst=3, seconds=10, now=lambda: now[0])
    assert [throttle.take("192.0.2.1") for _ in range(3)] == [0, 0, 0]
    assert throttle.take("192.0.2.1") == pytest.approx(10)
    assert throttle.take("192.0.2.2") == 0
    now[0] = 10.0
    assert throttle.take("192.0.2.1") == 0
    assert throttle.take("192.0.2.1") > 0
    throttle.give_back("192.0.2.1")
    assert throttle.take("192.0.2.1") == 0


def test_throttle_when_addresses_are_of_one_ipv6_network_then_they_count_together() -> None:
    throttle = Throttle(burst=2, seconds=10, now=lambda: 0.0)
    assert throttle.take("2001:db8:1:2::1") == 0
    assert throttle.take("2001:db8:1:2::ffff") == 0
    assert throttle.take("2001:db8:1:2:9::1") > 0
    assert throttle.take("2001:db8:1:3::1") == 0


def test_throttle_when_many_addresses_come_then_memory_is_bounded() -> None:
    throttle = Throttle(burst=1, seconds=1000, now=lambda: 0.0)
    for number in range(10_100):
        throttle.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(throttle._spent) <= 10_000


def test_burst_when_read_then_more_than_the_free_failures_of_one_operator() -> None:
    assert ADDRESS_BURST > 5


@pytest.mark.parametrize(
    ("text", "email"),
    [
        (" Ann@Example.COM ", "ann@example.com"),
        ("ann", ""),
        ("a@b@c", ""),
        ("a b@c", ""),
        ("<a@b>", ""),
        ("", ""),
    ],
)
def test_email_when_read_then_trimmed_lowered_or_refused(text: str, email: str) -> None:
    assert normal_email(text) == email


def test_roles_when_compared_then_each_includes_the_ones_before() -> None:
    assert [[role.allows(needed) for needed in Role] for role in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


# ---------------------------------------------------------------------- forms and cookies


def test_form_when_token_and_origin_fit_then_accepted() -> None:
    token = new_token()
    form = {"form_token": form_token(token)}
    check_form(
        {"origin": "https://crm.example.com", "host": "10.0.0.1"}, form, token, "https://crm.example.com"
    )
    check_form(
        {"origin": "http://127.0.0.1:8700", "host": "127.0.0.1:8700"}, form, token, "http://localhost:8700"
    )


@pytest.mark.parametrize(
    ("origin", "sent", "held"),
    [
        ("https://evil.example", "right", "token"),
        ("null", "right", "token"),
        ("", "right", "token"),
        ("https://crm.example.com", "", "token"),
        ("https://crm.example.com", "wrong", "token"),
        ("https://crm.example.com", "ключ", "token"),
        ("https://crm.example.com", "right", ""),
    ],
)
def test_form_when_token_or_origin_is_wrong_then_refused(origin: str, sent: str, held: str) -> None:
    right = form_token("token") if held else form_token("")
    form = {"form_token": right if sent == "right" else sent}
    with pytest.raises(FormRefused):
        check_form({"origin": origin, "host": "crm.example.com"}, form, held, "https://crm.example.com")


def test_form_when_the_cookie_is_empty_then_refused_even_with_its_own_token() -> None:
    with pytest.raises(FormRefused):
        check_form(
            {"origin": "https://a.example", "host": "a.example"},
            {"form_token": form_token("")},
            "",
            "https://a.example",
        )


@pytest.mark.parametrize(
    ("wish", "page"),
    [
        ("/admin/tenants/x/crm", "/admin/tenants/x/crm"),
        ("/admin/audit?tenant=x&since=2026-11-22T10:00", "/admin/audit?tenant=x&since=2026-11-22T10:00"),
        ("//evil.example", "/admin"),
        ("https://evil.example", "/admin"),
        ("/admin//evil.example", "/admin"),
        ("/admin\\evil", "/admin"),
        ("/administrator", "/admin"),
        ("javascript:alert(1)", "/admin"),
        ("", "/admin"),
    ],
)
def test_next_page_when_wished_then_only_a_page_of_the_console(wish: str, page: str) -> None:
    assert next_page(wish) == page


def test_flash_when_of_another_session_or_altered_then_not_shown() -> None:
    sealed = sealed_flash(Flash("done", "Saved <b>", "hint"), "token")
    assert open_flash(sealed, "token") == Flash("done", "Saved <b>", "hint")
    assert open_flash(sealed, "other") is None
    assert open_flash("x" + sealed, "token") is None
    assert open_flash("", "") is None


@given(st.text(max_size=5000), st.text(max_size=5000))
def test_flash_when_long_then_the_cookie_still_fits_a_browser(text: str, hint: str) -> None:
    sealed = sealed_flash(Flash("problem", text, hint), "token")
    assert len(sealed) < 3800
    opened = open_flash(sealed, "token")
    assert opened is not None and text.startswith(opened.text) and hint.startswith(opened.hint)


@given(st.text())
def test_flash_when_any_text_then_never_raises(value: str) -> None:
    assert open_flash(value, "token") is None


@pytest.mark.parametrize(
    ("client", "forwarded", "trusted", "address"),
    [
        ("203.0.113.9", "198.51.100.1", (), "203.0.113.9"),
        ("127.0.0.1", "198.51.100.1", ("127.0.0.1/32",), "198.51.100.1"),
        ("127.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.2", ("127.0.0.1/32", "10.0.0.0/8"), "198.51.100.1"),
        ("203.0.113.9", "198.51.100.1", ("127.0.0.1/32",), "203.0.113.9"),
        ("127.0.0.1", "", ("127.0.0.1/32",), "127.0.0.1"),
    ],
)
def test_client_address_when_behind_proxies_then_the_nearest_untrusted(
    client: str, forwarded: str, trusted: tuple[str, ...], address: str
) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert client_address({"client": (client, 1), "headers": headers}, trusted) == address


# ---------------------------------------------------------------------- rendering


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        (r"[1-9][0-9]{0,11}", r"[1-9][0-9]{0,11}"),
        (r"[A-Za-z_]+(/[A-Za-z0-9_+-]+){0,2}", r"[A-Za-z_]+(/[A-Za-z0-9_+\-]+){0,2}"),
        (r"https?://[^\s?#@]{3,300}", r"https?://[^\s?#@]{3,300}"),
        (r"(whsec_)?[A-Za-z0-9+/]{32,88}={0,2}", r"(whsec_)?[A-Za-z0-9+\/]{32,88}={0,2}"),
        (r"(?P<x>a)", ""),
        (r"\Aabc\Z", ""),
    ],
)
def test_pattern_when_shown_to_a_browser_then_escaped_as_it_wants(pattern: str, shown: str) -> None:
    assert html_pattern(pattern) == shown


def test_text_when_it_holds_direction_marks_or_controls_then_they_are_gone() -> None:
    assert plain("a\u202eb\x00c\x1b[31m\nd") == "abc[31m\nd"


def test_link_when_values_are_empty_or_hostile_then_left_out_or_quoted() -> None:
    assert link("/a", x="", y=None) == "/a"
    assert link("/a", x='"><b&c=d') == "/a?x=%22%3E%3Cb%26c%3Dd"
