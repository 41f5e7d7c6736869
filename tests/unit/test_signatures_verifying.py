"""Webhook signatures: published vectors, a witness library, and the ways in which senders err or cheat."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from crmbridge.core.secret import Secret
from crmbridge.toolkit.signatures import PRESETS, Profile, Verdict, new_secret, sign, sign_standard, verify

SECRET = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
OTHER = Secret("whsec_" + base64.b64encode(b"o" * 32).decode())
THIRD = Secret("whsec_" + base64.b64encode(b"t" * 32).decode())
MSG_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
SENT_AT = 1614265330
BODY = b'{"test": 2432232314}'
STANDARD = PRESETS["standard"]
STRIPE = PRESETS["stripe"]
GITHUB = PRESETS["github"]


def _signed(**changes: str) -> dict[str, str]:
    return sign_standard([SECRET], MSG_ID, SENT_AT, BODY) | changes


def _verdict(headers: object, body: bytes = BODY, *, now: float = SENT_AT, secrets: object = None) -> Verdict:
    return verify(STANDARD, secrets or [SECRET], headers, body, now=now)  # type: ignore[arg-type]


def test_sign_standard_when_published_vector_then_its_signature() -> None:
    assert sign_standard([SECRET], MSG_ID, SENT_AT, BODY) == {
        "webhook-id": MSG_ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_verify_when_stripe_vector_then_genuine() -> None:
    digest = "10c96c6fd3f320fcfc264cdc4f476c15060ede8e8a08404cea2ddf3b72544a9c"
    secret = Secret("whsec_test_secret")
    header = {"Stripe-Signature": f"t=1614265330,v0=aa,v1={'0' * 64},v1={digest}"}
    verdict = verify(STRIPE, [secret], header, BODY, now=SENT_AT)
    assert verdict.is_genuine and verdict.timestamp == SENT_AT
    assert sign(STRIPE, [secret], msg_id="x", timestamp=SENT_AT, body=BODY) == {
        "stripe-signature": f"t=1614265330,v1={digest}"
    }


def test_verify_when_github_vector_then_genuine() -> None:
    headers = {
        "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    }
    secret = Secret("It's a Secret to Everybody")
    verdict = verify(GITHUB, [secret], headers, b"Hello, World!", now=0)
    assert verdict == Verdict(is_genuine=True, event_id="72d3162e-cc78-11e3-81ab-4c9367dc0958")
    assert not verify(GITHUB, [secret], headers, b"Hello, World!\n", now=0).is_genuine


@pytest.mark.parametrize(
    ("encoding", "signature"),
    [
        ("base64", "sha256=2P9xBHSFz/H/+VBqZY8bpKg92UWEFp9fGSgbTWK+Sc8="),
        ("hex", "sha256=d8ff71047485cff1fff9506a658f1ba4a83dd94584169f5f19281b4d62be49cf"),
    ],
)
def test_verify_when_profile_is_written_by_a_driver_then_vectors_hold(encoding: str, signature: str) -> None:
    profile = Profile(
        name="own",
        signature_header="x-own-signature",
        value_format="prefix:sha256=",
        encoding=encoding,
        tolerance_seconds=None,
        id_json="test",
    )
    headers = {"X-Own-Signature": signature}
    assert verify(profile, [Secret("test_secret")], headers, BODY, now=0).event_id == "2432232314"


def test_verify_when_time_stands_in_the_body_then_it_is_part_of_what_is_signed() -> None:
    profile = Profile(
        name="own",
        signature_header="own-signature",
        template="{body}{timestamp}",
        timestamp_json="timestamp",
        id_json="guid",
        tolerance_seconds=None,
    )
    body = b'{"timestamp":"2026-11-22T10:00:00.000Z","guid":"g1"}'
    expected = hmac.digest(b"s", body + b"2026-11-22T10:00:00.000Z", hashlib.sha256)
    headers = sign(profile, [Secret("s")], msg_id="x", timestamp=0, body=body)
    assert headers == {"own-signature": base64.b64encode(expected).decode()}
    assert verify(profile, [Secret("s")], headers, body, now=0).event_id == "g1"
    assert verify(profile, [Secret("s")], headers, b"{}", now=0).reason == "bad_body"
    assert verify(profile, [Secret("s")], headers, b"[" * 100_000, now=0).reason == "bad_body"


@given(st.text(max_size=200), st.binary(min_size=24, max_size=64))
def test_sign_standard_when_witness_library_verifies_then_it_agrees(text: str, key: bytes) -> None:
    secret = Secret("whsec_" + base64.b64encode(key).decode())
    body = json.dumps({"data": text}).encode()
    headers = sign_standard([OTHER, secret], "msg_1", int(time.time()), body)
    assert Webhook(secret.open()).verify(body, headers) == {"data": text}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret.open()).verify(body + b" ", headers)


@given(st.text(max_size=200))
def test_verify_when_witness_library_signed_then_genuine(text: str) -> None:
    body = json.dumps({"data": text})
    secret = new_secret()
    moment = datetime.now(UTC)
    headers = {
        "Webhook-Id": "msg_2",
        "Webhook-Timestamp": str(int(moment.timestamp())),
        "Webhook-Signature": Webhook(secret.open()).sign("msg_2", moment, body),
    }
    assert verify(STANDARD, [secret], headers, body.encode(), now=moment.timestamp()).event_id == "msg_2"


@pytest.mark.parametrize(
    "body",
    [BODY + b"\n", b'{"test":2432232314}', b'{ "test": 2432232314}', b"", b"\xef\xbb\xbf" + BODY],
    ids=["trailing newline", "re-serialised", "spaced", "empty", "byte order mark"],
)
def test_verify_when_body_is_not_the_signed_bytes_then_mismatch(body: bytes) -> None:
    assert _verdict(_signed(), body) == Verdict(is_genuine=False, reason="mismatch")


def test_verify_when_key_is_the_secret_text_instead_of_its_bytes_then_mismatch() -> None:
    signed = f"{MSG_ID}.{SENT_AT}.".encode() + BODY
    wrong = base64.b64encode(hmac.digest(SECRET.open().encode(), signed, "sha256")).decode()
    assert _verdict(_signed(**{"webhook-signature": f"v1,{wrong}"})).reason == "mismatch"
    decoded = base64.b64decode("dGVzdA==")
    hexed = hmac.digest(decoded, b"1614265330." + BODY, "sha256").hex()
    header = {"stripe-signature": f"t=1614265330,v1={hexed}"}
    assert verify(STRIPE, [Secret("whsec_dGVzdA==")], header, BODY, now=SENT_AT).reason == "mismatch"


@pytest.mark.parametrize(
    ("skew", "reason"), [(-299, ""), (299, ""), (-301, "too_new"), (301, "too_old"), (300, ""), (-300, "")]
)
def test_verify_when_clocks_differ_then_five_minutes_either_way(skew: int, reason: str) -> None:
    verdict = _verdict(_signed(), now=SENT_AT + skew)
    assert (verdict.is_genuine, verdict.reason) == (reason == "", reason)
    header = sign(STRIPE, [SECRET], msg_id="x", timestamp=SENT_AT, body=BODY)
    assert verify(STRIPE, [SECRET], header, BODY, now=SENT_AT + skew).reason == reason


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [
        ("1614265330000", "bad_timestamp"),
        ("161426533000", "too_new"),
        ("1614265330.5", "bad_timestamp"),
        ("-1614265330", "bad_timestamp"),
        ("1e9", "bad_timestamp"),
        ("nan", "bad_timestamp"),
        ("٣٣٣", "bad_timestamp"),
        ("0x60", "bad_timestamp"),
        (" ", "missing_header"),
    ],
)
def test_verify_when_timestamp_is_odd_then_refused(stamp: str, reason: str) -> None:
    assert _verdict(_signed(**{"webhook-timestamp": stamp})).reason == reason


def test_verify_when_milliseconds_are_truly_signed_then_still_refused() -> None:
    headers = sign_standard([SECRET], MSG_ID, SENT_AT * 1000, BODY)
    assert _verdict(headers).reason == "bad_timestamp"


GOOD = "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (f"v1,{GOOD}", ""),
        (f"v1,AAAA v1,{GOOD}", ""),
        (f"malformed v1,{GOOD}", ""),
        (f"v1a,{GOOD} v1,{GOOD}", ""),
        (f"  v1,{GOOD}", ""),
        (f"v2,{GOOD}", "no_signature"),
        (f"v1a,{GOOD}", "no_signature"),
        (GOOD, "no_signature"),
        ("v1,", "no_signature"),
        ("v1", "no_signature"),
        ("", "missing_header"),
        ("   ", "missing_header"),
        (f"V1,{GOOD}", "no_signature"),
        (f"v1,{GOOD.rstrip('=')}", "mismatch"),
        ("v1," + GOOD.replace("+", "-").replace("/", "_"), "mismatch"),
        (f"v1,{GOOD}\u00e9", "mismatch"),
        ("v1," + base64.b64decode(GOOD).hex(), "mismatch"),
        ("v1," + " v1,".join(["AAAA"] * 50 + [GOOD]), "mismatch"),
    ],
)
def test_verify_when_signature_list_varies_then_only_a_well_formed_v1_counts(value: str, reason: str) -> None:
    assert _verdict(_signed(**{"webhook-signature": value})).reason == reason


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_verify_when_a_header_is_missing_empty_or_twice_then_refused(name: str) -> None:
    headers = _signed()
    assert _verdict({key: value for key, value in headers.items() if key != name}).reason == "missing_header"
    assert _verdict(headers | {name: ""}).reason == "missing_header"
    twice = [*headers.items(), (name.title(), headers[name])]
    assert _verdict(twice).reason == "duplicate_header"


def test_verify_when_header_names_are_in_any_case_then_genuine() -> None:
    assert _verdict([(name.upper(), value) for name, value in _signed().items()]).is_genuine


def test_verify_when_svix_names_are_used_then_genuine_but_never_mixed() -> None:
    svix = {name.replace("webhook", "svix"): value for name, value in _signed().items()}
    assert _verdict(svix).event_id == MSG_ID
    assert verify(PRESETS["svix"], [SECRET], svix, BODY, now=SENT_AT).event_id == MSG_ID
    assert verify(PRESETS["svix"], [SECRET], _signed(), BODY, now=SENT_AT).event_id == MSG_ID
    mixed = {"webhook-id": MSG_ID} | {name: value for name, value in svix.items() if name != "svix-id"}
    assert _verdict(mixed).reason == "missing_header"


@pytest.mark.parametrize("msg_id", ["a.b", "a b", "ü", "x" * 201, "a\nb"])
def test_verify_when_id_could_shift_the_signed_text_then_refused(msg_id: str) -> None:
    """``1.2`` + ``.3`` and ``1`` + ``.2.3`` sign the same bytes; so an id holds no full stop."""
    signed = f"{msg_id}.{SENT_AT}.".encode() + BODY
    key = base64.b64decode(SECRET.open()[6:])
    value = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    assert _verdict(_signed(**{"webhook-id": msg_id, "webhook-signature": value})).reason == "bad_id"
    with pytest.raises(ValueError, match="msg_id"):
        sign_standard([SECRET], msg_id, SENT_AT, BODY)


def test_verify_when_same_id_comes_with_a_fresh_time_then_same_event_id() -> None:
    again = sign_standard([SECRET], MSG_ID, SENT_AT + 600, BODY)
    first, second = _verdict(_signed()), _verdict(again, now=SENT_AT + 600)
    assert first.event_id == second.event_id == MSG_ID
    assert first.timestamp != second.timestamp


def test_verify_when_old_signature_gets_a_fresh_time_then_mismatch() -> None:
    stolen = _signed(**{"webhook-timestamp": str(SENT_AT + 600)})
    assert _verdict(stolen, now=SENT_AT + 600).reason == "mismatch"


def test_verify_when_secrets_rotate_mid_flight_then_both_sides_overlap() -> None:
    both = sign_standard([SECRET, OTHER], MSG_ID, SENT_AT, BODY)
    assert both["webhook-signature"].count("v1,") == 2
    for receiver in ([SECRET], [OTHER], [THIRD, OTHER]):
        assert _verdict(both, secrets=receiver).is_genuine
    assert _verdict(both, secrets=[THIRD]).reason == "mismatch"
    assert _verdict(_signed(), secrets=[OTHER, THIRD, SECRET]).is_genuine


def test_verify_when_github_hex_is_upper_case_then_genuine_and_without_prefix_not() -> None:
    digest = hmac.digest(b"s", BODY, "sha256").hex().upper()
    headers = {"x-hub-signature-256": f"sha256={digest}", "x-github-delivery": "d1"}
    assert verify(GITHUB, [Secret("s")], headers, BODY, now=0).is_genuine
    assert (
        verify(GITHUB, [Secret("s")], headers | {"x-hub-signature-256": digest}, BODY, now=0).reason
        == "no_signature"
    )
    sha1 = {"x-hub-signature": "sha1=" + hmac.digest(b"s", BODY, "sha1").hex(), "x-github-delivery": "d1"}
    assert verify(GITHUB, [Secret("s")], sha1, BODY, now=0).reason == "missing_header"


def test_verify_when_body_is_over_the_cap_then_refused_before_any_work() -> None:
    profile = msgspec.structs.replace(STANDARD, max_body_bytes=10)
    assert verify(profile, [SECRET], _signed(), BODY, now=SENT_AT).reason == "body_too_large"


def test_verify_when_no_id_is_given_then_event_id_is_the_body_hash() -> None:
    header = sign(STRIPE, [Secret("s")], msg_id="x", timestamp=SENT_AT, body=b"no json")
    verdict = verify(STRIPE, [Secret("s")], header, b"no json", now=SENT_AT)
    assert verdict.event_id == hashlib.sha256(b"no json").hexdigest()


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_dGVzdA==", "whsec_not base64!", "ü" * 40])
def test_secret_when_standard_one_is_empty_short_or_broken_then_refused_without_showing_it(text: str) -> None:
    assert _verdict(_signed(), secrets=[Secret(text)]).reason == "bad_secret"
    with pytest.raises(ValueError) as caught:
        sign_standard([Secret(text)], MSG_ID, SENT_AT, BODY)
    assert len(text) < 10 or text not in str(caught.value)


def test_secret_when_prefix_or_padding_is_left_out_then_read_all_the_same() -> None:
    bare = Secret(SECRET.open().removeprefix("whsec_").rstrip("="))
    assert sign_standard([bare], MSG_ID, SENT_AT, BODY) == _signed()


def test_new_secret_when_made_then_32_random_bytes() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert first.open().startswith("whsec_")
    assert len(base64.b64decode(first.open()[6:])) == 32


@pytest.mark.parametrize("secrets", [[], [SECRET] * 4])
def test_sign_when_none_or_too_many_secrets_then_value_error(secrets: list[Secret]) -> None:
    with pytest.raises(ValueError, match="secrets"):
        sign_standard(secrets, MSG_ID, SENT_AT, BODY)


def test_sign_when_scheme_carries_one_signature_then_two_secrets_are_refused() -> None:
    with pytest.raises(ValueError, match="one signature"):
        sign(GITHUB, [Secret("a"), Secret("b")], msg_id="x", timestamp=0, body=b"")


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "hmac-sha1"},
        {"algorithm": "md5"},
        {"encoding": "base32"},
        {"key_encoding": "rot13"},
        {"value_format": "list:"},
        {"value_format": "jws"},
        {"template": "{id}"},
        {"tolerance_seconds": 300},
    ],
)
def test_profile_when_it_cannot_hold_then_value_error_names_it(changes: dict[str, object]) -> None:
    options: dict[str, object] = {"name": "own", "signature_header": "x-own", "tolerance_seconds": None}
    with pytest.raises(ValueError, match="'own'"):
        Profile(**(options | changes))  # type: ignore[arg-type]


def test_profile_when_tenant_opts_into_sha1_then_verified() -> None:
    profile = Profile(
        name="old",
        signature_header="x-old",
        value_format="prefix:sha1=",
        encoding="hex",
        algorithm="hmac-sha1",
        allows_sha1=True,
        tolerance_seconds=None,
    )
    headers = {"x-old": "sha1=" + hmac.digest(b"s", BODY, "sha1").hex()}
    assert verify(profile, [Secret("s")], headers, BODY, now=0).is_genuine


@given(
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "stripe-signature", "x-y"]),
        st.text(max_size=60),
    ),
    st.binary(max_size=60),
    st.sampled_from(sorted(PRESETS)),
)
def test_verify_when_anything_is_sent_then_never_raises_and_never_genuine(
    headers: dict[str, str], body: bytes, preset: str
) -> None:
    assert not verify(PRESETS[preset], [SECRET], headers, body, now=SENT_AT).is_genuine
