"""Webhook signatures: one signer and one verifier, both described by data.

Sources: Standard Webhooks specification 1.0.0
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md), its reference
libraries, https://docs.svix.com/receiving/verifying-payloads/how-manual,
https://docs.stripe.com/webhooks/signature,
https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries.

A :class:`Profile` says where the signature, time and id stand, how the signed bytes are put together and how
secret and signature are written. Profiles of single providers stand in their drivers.
The raw body is verified, never a parsed one; comparisons take constant time; base64 and hex are read
strictly; tolerance holds for the past and the future.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets as randomness
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from crmbridge.core.secret import Secret

__all__ = ["PRESETS", "Profile", "Verdict", "new_secret", "sign", "sign_standard", "verify"]

MAX_BODY_BYTES = 1024 * 1024
MAX_SECRETS = 3
MIN_STANDARD_KEY_BYTES = 24
MAX_SIGNATURES = 10
_WHSEC = "whsec_"
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,200}")
_PART = re.compile(r"\{(id|timestamp|body)\}")
_ALGORITHMS = {"hmac-sha256": hashlib.sha256, "hmac-sha512": hashlib.sha512, "hmac-sha1": hashlib.sha1}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """How one sender signs. Header names are lower-case.

    ``value_format``: ``raw``; ``prefix:<text>``; ``list:<version>`` = space-separated ``<version>,<signature>``;
    ``kv:<key>`` = comma-separated ``key=value`` pairs, whose ``t`` is the time.
    ``template`` is made of ``{id}``, ``{timestamp}``, ``{body}`` and literal text, joined as bytes.
    The time comes from ``timestamp_header``, the ``t`` pair, or ``timestamp_json`` (dotted path in the JSON
    body, taken as text into the template); the id from ``id_header`` or ``id_json``, else it is the SHA-256
    of the body. ``aliases`` maps another header name to the profile's own.
    ``tolerance_seconds`` None: no time is checked; only for schemes without a Unix time.
    ``encoding``: ``base64`` or ``hex``. ``key_encoding``: ``utf8``, ``base64``, ``hex``, ``whsec``.
    ``hmac-sha1`` is refused unless ``allows_sha1``.
    """

    name: str
    signature_header: str
    value_format: str = "raw"
    template: str = "{body}"
    timestamp_header: str = ""
    timestamp_json: str = ""
    id_header: str = ""
    id_json: str = ""
    encoding: str = "base64"
    key_encoding: str = "utf8"
    algorithm: str = "hmac-sha256"
    allows_sha1: bool = False
    tolerance_seconds: int | None = 300
    dedupe_seconds: int = 7 * 86_400
    max_body_bytes: int = MAX_BODY_BYTES
    aliases: dict[str, str] = {}

    def __post_init__(self) -> None:
        kind, _, rest = self.value_format.partition(":")
        problem = ""
        if self.algorithm not in _ALGORITHMS or (self.algorithm == "hmac-sha1" and not self.allows_sha1):
            problem = f"algorithm {self.algorithm!r} is not allowed"
        elif self.encoding not in ("base64", "hex"):
            problem = "encoding is base64 or hex"
        elif self.key_encoding not in ("utf8", "base64", "hex", "whsec"):
            problem = "key_encoding is utf8, base64, hex or whsec"
        elif kind not in ("raw", "prefix", "list", "kv") or (kind != "raw" and not rest):
            problem = "value_format is raw, prefix:<text>, list:<version> or kv:<key>"
        elif "{body}" not in self.template:
            problem = "template must hold {body}"
        elif self.tolerance_seconds is not None and not (self.timestamp_header or kind == "kv"):
            problem = "tolerance_seconds needs a time outside the body; set it to null"
        if problem:
            raise ValueError(f"webhook profile {self.name!r}: {problem}")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the verifier found. ``reason`` is a stable word; ``event_id`` is set only when genuine.

    Reasons: ``missing_header``, ``duplicate_header``, ``bad_id``, ``bad_timestamp``, ``too_old``, ``too_new``,
    ``bad_body``, ``body_too_large``, ``no_signature``, ``bad_secret``, ``mismatch``.
    """

    is_genuine: bool
    reason: str = ""
    event_id: str = ""
    timestamp: int | None = None


STANDARD = Profile(
    name="standard",
    signature_header="webhook-signature",
    timestamp_header="webhook-timestamp",
    id_header="webhook-id",
    value_format="list:v1",
    template="{id}.{timestamp}.{body}",
    key_encoding="whsec",
    aliases={
        "svix-signature": "webhook-signature",
        "svix-timestamp": "webhook-timestamp",
        "svix-id": "webhook-id",
    },
)

PRESETS: dict[str, Profile] = {
    "standard": STANDARD,
    "svix": msgspec.structs.replace(
        STANDARD,
        name="svix",
        signature_header="svix-signature",
        timestamp_header="svix-timestamp",
        id_header="svix-id",
        aliases={
            "webhook-signature": "svix-signature",
            "webhook-timestamp": "svix-timestamp",
            "webhook-id": "svix-id",
        },
    ),
    "stripe": Profile(
        name="stripe",
        signature_header="stripe-signature",
        value_format="kv:v1",
        template="{timestamp}.{body}",
        encoding="hex",
        id_json="id",
    ),
    "github": Profile(
        name="github",
        signature_header="x-hub-signature-256",
        value_format="prefix:sha256=",
        encoding="hex",
        id_header="x-github-delivery",
        tolerance_seconds=None,
    ),
}


def new_secret() -> Secret:
    """A fresh signing secret: ``whsec_`` and the base64 of 32 random bytes."""
    return Secret(_WHSEC + base64.b64encode(randomness.token_bytes(32)).decode())


def sign_standard(secrets: Sequence[Secret], msg_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three Standard Webhooks headers; several secrets (rotation) give several signatures.

    ``msg_id`` is the same on every retry, ``timestamp`` (Unix seconds) is of this try, ``body`` the exact
    bytes sent. Raises ValueError for an id with a full stop, no or more than three secrets, and a secret
    that is not base64 of 24 bytes or more.
    """
    return sign(STANDARD, secrets, msg_id=msg_id, timestamp=timestamp, body=body)


def sign(
    profile: Profile, secrets: Sequence[Secret], *, msg_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers that ``verify`` of the same profile accepts. Raises ValueError as ``sign_standard`` does.

    Profiles that keep the time or the id inside the body cannot put them there: the caller's body must.
    """
    if not 1 <= len(secrets) <= MAX_SECRETS:
        raise ValueError(f"give one to {MAX_SECRETS} signing secrets")
    if not _ID.fullmatch(msg_id):
        raise ValueError("msg_id is 1 to 200 printable ASCII characters without space and full stop")
    moment = _json_text(body, profile.timestamp_json) if profile.timestamp_json else str(int(timestamp))
    signed = _signed_bytes(profile, msg_id, moment, body)
    signatures = [
        _encoded(profile, hmac.digest(_key(profile, secret), signed, _ALGORITHMS[profile.algorithm]))
        for secret in secrets
    ]
    kind, _, rest = profile.value_format.partition(":")
    if kind == "list":
        value = " ".join(f"{rest},{signature}" for signature in signatures)
    elif kind == "kv":
        value = ",".join([f"t={moment}", *(f"{rest}={signature}" for signature in signatures)])
    elif len(signatures) > 1:
        raise ValueError(f"webhook profile {profile.name!r} carries one signature; give one secret")
    else:
        value = (rest if kind == "prefix" else "") + signatures[0]
    headers = {profile.signature_header: value}
    if profile.timestamp_header:
        headers[profile.timestamp_header] = moment
    if profile.id_header:
        headers[profile.id_header] = msg_id
    return headers


def verify(
    profile: Profile,
    secrets: Sequence[Secret],
    headers: Mapping[str, str] | Sequence[tuple[str, str]],
    body: bytes,
    *,
    now: float,
) -> Verdict:
    """Whether ``body`` comes from the holder of one of ``secrets``. Never raises for what a sender sent.

    ``headers`` as pairs shows a header that was sent twice (refused). ``now`` is Unix seconds. Repeats are
    the caller's to find, by ``event_id``.
    """
    if len(body) > profile.max_body_bytes:
        return _no("body_too_large")
    found, problem = _needed_headers(profile, headers)
    if problem:
        return _no(problem)
    kind, _, rest = profile.value_format.partition(":")
    value = found[profile.signature_header]
    moment, signatures = _read_value(kind, rest, value)
    if profile.timestamp_header:
        moment = found[profile.timestamp_header]
    if profile.timestamp_json:
        moment = _json_text(body, profile.timestamp_json)
        if not moment:
            return _no("bad_body")
    timestamp, problem = _check_time(profile, moment, now)
    if problem:
        return _no(problem)
    event_id = found.get(profile.id_header, "")
    if profile.id_header and not _ID.fullmatch(event_id):
        return _no("bad_id")
    if not signatures:
        return _no("no_signature")
    reason = _compare(profile, secrets, signatures, _signed_bytes(profile, event_id, moment, body))
    if reason:
        return _no(reason)
    if profile.id_json:
        event_id = _json_text(body, profile.id_json)
    event_id = event_id or hashlib.sha256(body).hexdigest()
    return Verdict(is_genuine=True, event_id=event_id, timestamp=timestamp)


def _no(reason: str) -> Verdict:
    return Verdict(is_genuine=False, reason=reason)


def _needed_headers(
    profile: Profile, headers: Mapping[str, str] | Sequence[tuple[str, str]]
) -> tuple[dict[str, str], str]:
    """The profile's headers by its own names, and a reason when one is missing, empty or there twice."""
    wanted = [
        name for name in (profile.signature_header, profile.timestamp_header, profile.id_header) if name
    ]
    pairs: Iterable[tuple[str, str]] = headers.items() if isinstance(headers, Mapping) else headers
    own: dict[str, str] = {}
    aliased: dict[str, str] = {}
    for name, value in pairs:
        lower = name.lower()
        target = own if lower in wanted else aliased
        lower = lower if lower in wanted else profile.aliases.get(lower, "")
        if not lower:
            continue
        if lower in target:
            return {}, "duplicate_header"
        target[lower] = value.strip()
    # One family or the other: a mix would let a sender pair a signed id with another family's time.
    found = own if own else aliased
    if any(not found.get(name) for name in wanted):
        return {}, "missing_header"
    return found, ""


def _read_value(kind: str, rest: str, value: str) -> tuple[str, list[str]]:
    """The time (``kv`` only) and the signatures of the wanted version; malformed items are skipped."""
    signatures: list[str] = []
    moment = ""
    if kind == "raw":
        signatures = [value]
    elif kind == "prefix":
        signatures = [value[len(rest) :]] if value.startswith(rest) else []
    elif kind == "list":
        for item in value.split(" "):
            version, comma, signature = item.partition(",")
            if comma and version == rest:
                signatures.append(signature)
    else:
        for item in value.split(","):
            key, _, text = item.strip().partition("=")
            if key == "t":
                moment = text
            elif key == rest:
                signatures.append(text)
    return moment, [signature for signature in signatures if signature][:MAX_SIGNATURES]


def _check_time(profile: Profile, moment: str, now: float) -> tuple[int | None, str]:
    if profile.tolerance_seconds is None:
        return None, ""
    if not re.fullmatch(r"[0-9]{1,12}", moment):
        return None, "bad_timestamp"
    timestamp = int(moment)
    if timestamp < now - profile.tolerance_seconds:
        return None, "too_old"
    if timestamp > now + profile.tolerance_seconds:
        return None, "too_new"
    return timestamp, ""


def _compare(profile: Profile, secrets: Sequence[Secret], signatures: list[str], signed: bytes) -> str:
    """An empty text when any signature is of any secret; every pair is compared, whatever matched before."""
    given = [decoded for text in signatures if (decoded := _decoded(profile, text)) is not None]
    is_match = False
    for secret in secrets[:MAX_SECRETS]:
        try:
            key = _key(profile, secret)
        except ValueError:
            return "bad_secret"
        expected = hmac.digest(key, signed, _ALGORITHMS[profile.algorithm])
        for signature in given:
            is_match |= hmac.compare_digest(expected, signature)
    return "" if is_match else "mismatch"


def _signed_bytes(profile: Profile, msg_id: str, moment: str, body: bytes) -> bytes:
    parts = {"id": msg_id.encode(), "timestamp": moment.encode(), "body": body}
    pieces = _PART.split(profile.template)
    return b"".join(parts[piece] if index % 2 else piece.encode() for index, piece in enumerate(pieces))


def _key(profile: Profile, secret: Secret) -> bytes:
    """The HMAC key. Raises ValueError for an empty, wrongly written or too short one; never shows it."""
    text = secret.open().strip()
    try:
        if profile.key_encoding == "utf8":
            key = text.encode()
        elif profile.key_encoding == "hex":
            key = bytes.fromhex(text)
        else:
            text = text.removeprefix(_WHSEC) if profile.key_encoding == "whsec" else text
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"the signing secret is not written as {profile.key_encoding}") from None
    if not key:
        raise ValueError("the signing secret is empty")
    if profile.key_encoding == "whsec" and len(key) < MIN_STANDARD_KEY_BYTES:
        raise ValueError(f"the signing secret is shorter than {MIN_STANDARD_KEY_BYTES} bytes")
    return key


def _encoded(profile: Profile, digest: bytes) -> str:
    return digest.hex() if profile.encoding == "hex" else base64.b64encode(digest).decode()


def _decoded(profile: Profile, text: str) -> bytes | None:
    """The digest, or None. Hex in either case; base64 in the standard alphabet with its padding."""
    try:
        if profile.encoding == "hex":
            return binascii.unhexlify(text) if text.isascii() else None
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _json_text(body: bytes, path: str) -> str:
    """A text or whole number at a dotted path of the JSON body; empty when it is not there."""
    try:
        tree: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        return ""
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    if isinstance(tree, str):
        return tree[:200]
    return str(tree) if isinstance(tree, int) and not isinstance(tree, bool) else ""
