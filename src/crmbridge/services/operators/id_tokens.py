"""ID tokens of OpenID Connect: which key, which signature, which claims. No I/O.

Sources: OpenID Connect Core 1.0 section 3.1.3.7 (what to check), RFC 7515 (JWS), RFC 7517 (keys), RFC 8725 (algorithms
by an allow-list, a key for one algorithm only).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from joserfc import errors, jws, jwt
from joserfc.jwk import JWKRegistry, Key, RSAKey

from crmbridge.core.secret import Secret
from crmbridge.services.operators.model import OidcRefused

__all__ = ["ALGORITHMS", "LEEWAY_SECONDS", "OLDEST_SECONDS", "UnknownKey", "read_id_token"]

# Each algorithm with the one kind of key that it may be used with. Never none, never one with a shared secret.
ALGORITHMS = {"RS256": ("RSA", ""), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
LEEWAY_SECONDS = 60
OLDEST_SECONDS = 600
_LEAST_RSA_BITS = 2048
_LONGEST_TOKEN = 32_768
_PUBLIC_PARTS = ("kty", "n", "e", "crv", "x", "y")
# What a hostile header, key or payload can make of a parser, beside the library's own errors.
_BROKEN = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
_REGISTRY = jws.JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)


class UnknownKey(Exception):
    """No published key fits the token: the keys may have been changed since they were read."""


def read_id_token(
    token: str,
    keys: Sequence[Mapping[str, Any]],
    *,
    issuer: str,
    client_id: str,
    nonce: Secret,
    now: int,
) -> dict[str, Any]:
    """The claims of a token that is genuine, for us, of this flow and fresh. ``now`` is seconds since 1970.

    Raises UnknownKey when no key of ``keys`` (JWKs) fits, OidcRefused for everything else.
    """
    if len(token) > _LONGEST_TOKEN or not token.isascii():
        raise OidcRefused("token_unreadable")
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (errors.JoseError, *_BROKEN):
        raise OidcRefused("token_unreadable") from None
    key = _key(header, keys)
    try:
        with warnings.catch_warnings():
            # The library wants EdDSA to be called Ed25519 (RFC 9864); providers still call it EdDSA.
            warnings.simplefilter("ignore", errors.SecurityWarning)
            claims = jwt.decode(token, key, registry=_REGISTRY).claims
    except errors.BadSignatureError:
        raise OidcRefused("token_signature") from None
    except (errors.JoseError, *_BROKEN):
        raise OidcRefused("token_unreadable") from None
    _check(claims, issuer, client_id, nonce, now)
    return claims


def _key(header: Mapping[str, Any], keys: Sequence[Mapping[str, Any]]) -> Key:
    alg, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise OidcRefused("token_algorithm")
    if "crit" in header or "b64" in header or not isinstance(kind, str) or kind.upper() != "JWT":
        raise OidcRefused("token_header")
    fitting = [key for key in keys if _fits(key, alg) and (kid is None or key.get("kid") == kid)]
    if not fitting:
        raise UnknownKey
    if kid is None and len(fitting) > 1:
        raise OidcRefused("token_without_kid")
    return _imported(fitting[0])


def _fits(key: Mapping[str, Any], alg: str) -> bool:
    kind, curve = ALGORITHMS[alg]
    operations = key.get("key_ops", ["verify"])
    return (
        key.get("kty") == kind
        and (not curve or key.get("crv") == curve)
        and key.get("use", "sig") == "sig"
        and key.get("alg", alg) == alg
        and isinstance(operations, list)
        and "verify" in operations
    )


def _imported(key: Mapping[str, Any]) -> Key:
    try:
        made = JWKRegistry.import_key({part: key[part] for part in _PUBLIC_PARTS if part in key})
        is_weak = isinstance(made, RSAKey) and made.public_key.key_size < _LEAST_RSA_BITS
    except (errors.JoseError, *_BROKEN):
        raise OidcRefused("key_unreadable") from None
    if is_weak:
        raise OidcRefused("key_too_short")
    return made


def _check(claims: dict[str, Any], issuer: str, client_id: str, nonce: Secret, now: int) -> None:
    registry = jwt.JWTClaimsRegistry(
        now=now,
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        registry.validate(claims)
    except errors.ExpiredTokenError:
        raise OidcRefused("token_expired") from None
    except errors.MissingClaimError:
        raise OidcRefused("claim_missing") from None
    except errors.InvalidClaimError as error:
        known = error.claim if error.claim in ("iss", "aud", "sub", "exp", "iat", "nbf") else "other"
        raise OidcRefused(f"claim_{known}") from None
    except _BROKEN:
        raise OidcRefused("claim_other") from None
    if claims["iat"] < now - OLDEST_SECONDS - LEEWAY_SECONDS:
        raise OidcRefused("claim_iat")
    audience, party = claims["aud"], claims.get("azp")
    if party != client_id and (party is not None or (isinstance(audience, list) and len(audience) > 1)):
        raise OidcRefused("claim_azp")
    given = claims.get("nonce")
    if not isinstance(given, str) or Secret(given) != nonce:
        raise OidcRefused("claim_nonce")
    if not 1 <= len(claims["sub"]) <= 255 or not claims["sub"].isascii() or not claims["sub"].isprintable():
        raise OidcRefused("claim_sub")
