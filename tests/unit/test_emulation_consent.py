"""The consent page that emulators share: hostile requests stay text, and PKCE is checked as RFC 7636 says."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from crmbridge.emulation import Incoming, consent_page, sent_back, verifies


def _asked(**query: str) -> Incoming:
    return Incoming("GET", "/authorize", {name: [text] for name, text in query.items()}, {})


def test_page_when_the_request_is_hostile_then_it_stays_text() -> None:
    hostile = '"><script>alert(1)</script>'
    answer = consent_page(
        _asked(state=hostile), "/authorize", provider="Acme", title="Allow?", asks=f"asks for {hostile}"
    )
    assert answer.status == 200
    assert b"<script>" not in answer.body
    assert b'name="decision" value="allow"' in answer.body


def test_page_when_the_request_is_wrong_then_there_is_nothing_to_decide() -> None:
    answer = consent_page(
        _asked(state="s"), "/authorize", provider="Acme", title="Allow?", asks="", problem="<b>unknown</b>"
    )
    assert answer.status == 400
    assert b"<form" not in answer.body
    assert b"&lt;b&gt;unknown" in answer.body


@pytest.mark.parametrize("uri", ["https://app.example/back", "https://app.example/back?tenant=a"])
def test_redirect_when_the_address_has_a_query_then_it_is_kept(uri: str) -> None:
    location = sent_back(uri, {"code": "a b"}).header("location")
    assert location == f"{uri}{'&' if '?' in uri else '?'}{urlencode({'code': 'a b'})}"


def test_challenge_when_it_is_the_example_of_the_rfc_then_only_its_verifier_fits() -> None:
    challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # RFC 7636 appendix B
    assert verifies(challenge, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert not verifies(challenge, "")
    assert verifies("", "")
