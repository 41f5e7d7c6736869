"""The connect form: what the operator typed against what the manifest asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from crmbridge.core.errors import CrmError, EgressRefused, FieldError, ValidationError
from crmbridge.core.manifest import Manifest, Setting
from crmbridge.core.secret import Secret
from crmbridge.toolkit.egress import EgressPolicy, check_url
from crmbridge.toolkit.signatures import new_secret

__all__ = ["Form", "read_form"]

_MAX_VALUE = 64 * 1024


class Form(msgspec.Struct, kw_only=True):
    """A form that passed: plain settings, secrets, and the names of secrets that crmbridge made."""

    settings: dict[str, str]
    secrets: dict[str, Secret]
    generated: tuple[str, ...] = ()


def read_form(manifest: Manifest, values: Mapping[str, str], policy: EgressPolicy) -> Form:
    """Trim, check and split a form. Raises ValidationError that names every bad setting; never echoes a value."""
    form = Form(settings={}, secrets={})
    errors = [
        FieldError(name, f"unknown setting; {manifest.display_name} asks for {_names(manifest)}")
        for name in values
        if name not in {setting.name for setting in manifest.settings}
    ]
    for setting in manifest.settings:
        text = values.get(setting.name, "")
        if not isinstance(text, str):
            errors.append(FieldError(setting.name, "must be a text"))
            continue
        problem = _take(setting, text.strip(), form, policy)
        if problem:
            errors.append(FieldError(setting.name, problem))
    if errors:
        raise ValidationError(
            f"The form for {manifest.display_name} has {len(errors)} problem(s).",
            provider=manifest.slug,
            operation="connect",
            fields=tuple(errors),
        )
    return form


def _names(manifest: Manifest) -> str:
    return ", ".join(setting.name for setting in manifest.settings) or "nothing"


def _take(setting: Setting, text: str, form: Form, policy: EgressPolicy) -> str:
    """Put one value where it belongs; answers the problem, or an empty text."""
    if not text and setting.is_generated:
        form.secrets[setting.name] = new_secret()
        form.generated = (*form.generated, setting.name)
        return ""
    text = text or setting.default
    if not text:
        return f"is required: {setting.help}" if setting.is_required else ""
    problem = _problem(setting, text, policy)
    if problem:
        return problem
    if setting.is_secret:
        form.secrets[setting.name] = Secret(text)
    else:
        form.settings[setting.name] = text.rstrip("/") if setting.kind == "url" else text
    return ""


def _problem(setting: Setting, text: str, policy: EgressPolicy) -> str:
    if len(text) > _MAX_VALUE:
        return f"is too long ({len(text)} characters; at most {_MAX_VALUE})"
    if any(ord(char) < 32 and char not in "\t\r\n" for char in text):
        return "holds control characters"
    if setting.kind == "url":
        try:
            check_url(text, policy)
        except EgressRefused as error:
            return f"{error.message} {error.fix.hint}"
        except CrmError as error:
            return error.message
    if setting.kind == "json":
        try:
            msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            return f"is not JSON: {error}"
    if setting.options and text not in setting.options:
        return f"must be one of {', '.join(setting.options)}"
    if setting.pattern and not re.fullmatch(setting.pattern, text):
        return f"does not look right: {setting.help}" + (
            f" Example: {setting.example}" if setting.example else ""
        )
    return ""
