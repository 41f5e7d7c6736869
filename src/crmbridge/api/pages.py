"""The pages that a person sees after consent. No script, no style sheet, nothing from elsewhere."""

from __future__ import annotations

from html import escape

from crmbridge.core.errors import CrmError
from crmbridge.services.connections.consent import Connected

__all__ = ["failure_page", "outcome_page"]

_FRAME = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body><main>
<h1>{title}</h1>
{body}
</main></body>
</html>
"""


def failure_page(error: CrmError) -> str:
    """Why nothing was connected, and what to do."""
    body = [_paragraph(error.message), _paragraph(f"What to do: {error.fix.hint}"), _paragraph(_NOTHING)]
    body.append(_link("/admin/tenants", "For operators: back to the console"))
    return _framed("Not connected", body)


_NOTHING = "A connection that was in use before goes on as it was."


def outcome_page(done: Connected) -> str:
    """What was connected, what is missing, and the next step."""
    credential, report = done.report.credential, done.report
    name = done.display_name
    named = f"{name}, account {credential.account}" if credential.account else name
    body = [_paragraph(f"Consent was given: {named}.")]
    if report.ok:
        body.append(_paragraph("The live test has passed."))
    else:
        why = (report.error or {}).get("message", "no reason was given")
        body.append(_paragraph(f"The live test has failed: {why}"))
    if credential.missing_rights:
        rights = "".join(f"<li>{escape(right)}</li>" for right in credential.missing_rights)
        body.append(
            f"<p>These rights are missing; calls that need them will be refused:</p><ul>{rights}</ul>"
        )
    body += [_paragraph(warning) for warning in report.warnings]
    body.append(_next(done))
    body.append(
        _link(f"/admin/tenants/{done.tenant.slug}/crm", "For operators: test and activate in the console")
    )
    return _framed("Connected" if report.ok else "Connected, but not working yet", body)


def _next(done: Connected) -> str:
    credential = done.report.credential
    path = f"/api/tenants/{done.tenant.slug}/credentials/{credential.id}"
    command = f"{done.tenant.slug} {credential.id}"
    if not done.report.ok:
        said = _paragraph("Next: correct what the test reports, then test again:")
        return said + _code(f"crmbridge test {command}") + _code(f"POST {path}/test")
    said = _paragraph("Next: your operator puts it to use. You may close this page.")
    return said + _code(f"crmbridge activate {command}") + _code(f"POST {path}/activate")


def _framed(title: str, body: list[str]) -> str:
    return _FRAME.format(title=escape(title), body="\n".join(body))


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _link(path: str, text: str) -> str:
    return f'<p><a href="{escape(path)}">{escape(text)}</a></p>'


def _code(text: str) -> str:
    return f"<p><code>{escape(text)}</code></p>"
