"""Signing in by the button: to the OpenID provider, and back."""

from __future__ import annotations

from crmbridge.console.admission import new_token, next_page
from crmbridge.console.pages.sign_in import form_page, signed_in
from crmbridge.console.visit import Page, Visit, expired_cookie
from crmbridge.core.errors import CrmError, Fix, NotFound
from crmbridge.services.operators import Oidc
from crmbridge.services.operators.oidc import FLOW_SECONDS

__all__ = ["begin", "finish"]


def _configured(visit: Visit) -> Oidc:
    oidc = visit.services.operators.oidc
    if oidc is None:
        raise NotFound("There is no such page.", fix=Fix("go_on", "Go on from the sign-in page."))
    return oidc


async def begin(visit: Visit) -> Page:
    """On to the provider. Nothing is kept here: the flow lives in the browser's cookie, bound to its visit."""
    oidc = _configured(visit)
    wish = next_page(visit.query.get("next", ""))
    if visit.session is not None:
        return visit.go(wish)
    is_new = not visit.token
    if is_new:
        visit.token = new_token()
    try:
        url, flow = await oidc.begin(visit.token, wish)
    except CrmError as error:
        page = await form_page(visit, error=error, status=error.http_status)
    else:
        page = visit.go(url)
        page.cookies.append(visit.cookie(visit.cookies.flow, flow, FLOW_SECONDS))
    if is_new:
        page.cookies.append(visit.cookie(visit.cookies.visit, visit.token))
    return page


async def finish(visit: Visit) -> Page:
    """Back from the provider: a new session, or the sign-in page that says why not. The flow is over either way."""
    _configured(visit)
    if visit.session is not None:
        return visit.go("/admin")
    try:
        signed, wish = await visit.services.operators.sign_in_elsewhere(
            visit.flow,
            visit.token,
            visit.query,
            address=visit.address,
            user_agent=visit.user_agent,
            request_id=visit.request_id,
        )
    except CrmError as error:
        page = await form_page(visit, error=error, status=error.http_status)
    else:
        page = signed_in(visit, signed, wish)
    page.cookies.append(expired_cookie(visit.cookies.flow, visit.cookies))
    return page
