"""One way to say that a setting is missing, whoever finds it out."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from crmbridge.core.driver import Access
from crmbridge.core.errors import NotConfigured
from crmbridge.core.manifest import Auth, AuthKind, Manifest, Setting
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.toolkit import auth
from crmbridge.toolkit.exchange import HttpDriver
from crmbridge.toolkit.filling import fill_address, zone_named
from crmbridge.toolkit.forms import address, client, zone


class Acme(HttpDriver):
    MANIFEST = Manifest(
        slug="acme",
        display_name="Acme",
        api_version="1",
        pages=(),
        read_on="2026-11-25",
        auth=Auth(kind=AuthKind.BASIC, user="user", secret="password"),
        settings=(
            Setting(name="shop", label="Shop", help="Its number.", pattern="[1-9][0-9]*"),
            Setting(name="minutes", label="Minutes", help="How long.", default="60", pattern="[0-9]+"),
            Setting(name="user", label="User", help="Who."),
        ),
        base_url="{address}/shops/{shop}",
        objects={},
    )


class Nobody:
    async def send(self, request: HttpRequest) -> Any:
        raise AssertionError("nothing may be sent")


def acme(facts: dict[str, str] | None = None, **settings: str) -> Acme:
    return Acme(Access(transport=Nobody(), settings=settings, secrets={}, facts=facts or {}))


def told(error: NotConfigured) -> tuple[str, str, str, str]:
    assert error.fix is not None
    return error.message, error.fields[0].field, error.fields[0].message, error.fix.hint


async def test_setting_when_missing_then_address_need_and_sign_in_say_it_alike() -> None:
    expected = (
        "The setting 'shop' of this connection is missing.",
        "shop",
        "is missing",
        "Fill in 'shop' in the credential form and test it again.",
    )
    driver = acme(address="https://acme.example.com", shop="")
    with pytest.raises(NotConfigured) as by_address:
        driver.base_url()
    with pytest.raises(NotConfigured) as by_need:
        driver.needed("shop")
    with pytest.raises(NotConfigured) as by_scheme:
        await auth.apply(driver.manifest.auth, driver.access, HttpRequest(method="GET", url="/x"))
    assert told(by_address.value) == told(by_need.value) == expected
    assert by_address.value.provider == by_need.value.provider == "acme"
    assert told(by_scheme.value) == tuple(part.replace("shop", "user") for part in expected)


def test_need_when_not_of_its_pattern_then_not_valid() -> None:
    with pytest.raises(NotConfigured) as caught:
        acme(shop="7 or 8").needed("shop")
    assert caught.value.message == "The setting 'shop' of this connection is not valid."
    assert "7 or 8" not in str(caught.value.to_dict())


def test_setting_when_it_has_a_default_then_that_stands_for_an_empty_one() -> None:
    assert (acme(minutes="").needed("minutes"), acme(minutes="15").setting("minutes")) == ("60", "15")
    assert acme().setting("unknown") == ""


def test_address_when_values_hold_more_than_a_word_then_they_stay_one_part_of_it() -> None:
    driver = acme({"address": "https://facts.example.com/", "shop": "1"}, address=" ", shop="7/../8?x")
    with pytest.raises(NotConfigured):
        driver.base_url()
    driver = acme({"address": " https://facts.example.com/ "}, address="", shop="7/../8?x")
    assert driver.base_url() == "https://facts.example.com/shops/7%2F..%2F8%3Fx"


def test_address_when_somebody_else_asks_then_his_words_stand_in_the_error() -> None:
    with pytest.raises(NotConfigured) as caught:
        fill_address("{x}", {}, "acme", whose="Acme", where="when you start")
    assert told(caught.value)[0::3] == ("The setting 'x' of Acme is missing.", "Fill in 'x' when you start.")


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "\x00"])
def test_zone_when_it_is_none_then_not_configured_names_the_setting(name: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        zone_named(name, "acme")
    assert caught.value.fields[0].field == "time_zone"
    assert zone_named("Asia/Dubai", "acme").key == "Asia/Dubai"


def test_forms_when_they_ask_alike_then_the_settings_differ_in_their_texts_alone() -> None:
    client_id, secret = client("Whose.", "Belongs to it.")
    assert (client_id.name, client_id.is_secret, secret.name, secret.is_secret) == (
        "client_id",
        False,
        "client_secret",
        True,
    )
    assert (client_id.help, secret.help) == ("Whose.", "Belongs to it.")
    at = address("https://acme.example.com", "Where.")
    assert (
        at.name == "base_url"
        and re.fullmatch(at.pattern, at.default)
        and not re.fullmatch(at.pattern, "acme")
    )
    there = zone("shop", "Its own.", is_required=False, example="Asia/Dubai")
    assert there.label == "Time zone of the shop" and re.fullmatch(there.pattern, there.example)
    assert not there.is_required and zone("shop", "Its own.").is_required


class Listening:
    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        return HttpResponse(status=200, headers={}, body=b"")


@pytest.mark.parametrize("names", [("access_token", "refresh_token"), ("access_token",)])
async def test_grant_when_revoked_then_by_its_refresh_token_where_there_is_one(
    names: tuple[str, ...],
) -> None:
    class Open(Acme):
        MANIFEST = msgspec.structs.replace(Acme.MANIFEST, auth=Auth(kind=AuthKind.OAUTH_CODE))

    door = Listening()
    secrets = {name: Secret(f"{name}-text") for name in names}
    driver = Open(Access(transport=door, settings={}, secrets=secrets))
    assert await driver.revoke_at("https://acme.example.com/revoke")
    (request,) = door.requests
    assert (request.method, request.url) == ("POST", "https://acme.example.com/revoke")
    assert request.form == {"token": f"{names[-1]}-text"}
