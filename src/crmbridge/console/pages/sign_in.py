"""Signing in and out, and one's own password."""

from __future__ import annotations

from crmbridge.console.admission import FormRefused, new_token, next_page
from crmbridge.console.visit import Page, Visit, expired_cookie, link
from crmbridge.core.errors import CrmError, NotFound, RateLimited, ValidationError
from crmbridge.services.operators.model import SignedIn, SignInRefused

__all__ = ["change_password", "form_page", "show", "show_password", "sign_in", "sign_out", "signed_in"]


async def show(visit: Visit) -> Page:
    """The sign-in form; a new visit gets the cookie that its form is bound to."""
    if visit.session is not None:
        return visit.go(next_page(visit.query.get("next", "")))
    return await form_page(visit)


async def form_page(visit: Visit, *, error: CrmError | None = None, status: int = 200) -> Page:
    """The sign-in form, with what went wrong."""
    is_new = not visit.token
    if is_new:
        visit.token = new_token()
    wish = visit.form.get("next") or visit.query.get("next", "")
    page = visit.page(
        "sign_in.html",
        status=status,
        error=error,
        email=visit.form.get("email", ""),
        next=wish,
        oidc=visit.services.operators.oidc,
        oidc_path=link("/admin/oidc", next=wish),
        is_first=not await visit.services.operators.are_there(),
    )
    if is_new:
        page.cookies.append(visit.cookie(visit.cookies.visit, visit.token))
    return page


async def sign_in(visit: Visit) -> Page:
    """A new session, and on to the page that was asked for."""
    if visit.session is not None:
        raise FormRefused("You are signed in already.")
    try:
        signed = await visit.services.operators.sign_in(
            visit.form.get("email", ""),
            visit.form.get("password", ""),
            address=visit.address,
            user_agent=visit.user_agent,
            request_id=visit.request_id,
        )
    except (SignInRefused, RateLimited) as error:
        return await form_page(visit, error=error, status=error.http_status)
    return signed_in(visit, signed, visit.form.get("next", ""))


def signed_in(visit: Visit, signed: SignedIn, wish: str) -> Page:
    """On to the page that was asked for, with the session's cookie."""
    page = visit.go(next_page(wish))
    page.cookies.append(visit.cookie(visit.cookies.session, signed.token))
    page.cookies.append(expired_cookie(visit.cookies.visit, visit.cookies))
    return page


async def sign_out(visit: Visit) -> Page:
    """End the session here and in the browser."""
    assert visit.session is not None
    await visit.services.operators.sign_out(visit.session, visit.request_id)
    page = visit.go("/admin/sign-in")
    page.cookies.append(expired_cookie(visit.cookies.session, visit.cookies))
    return page


async def show_password(visit: Visit) -> Page:
    """The form for one's own password."""
    return visit.page("password.html", error=None)


async def change_password(visit: Visit) -> Page:
    """One's own password; other sessions end."""
    assert visit.session is not None
    if visit.form.get("new", "") != visit.form.get("again", ""):
        error: CrmError = ValidationError("The new password was typed in two ways. Type it twice alike.")
        return visit.page("password.html", status=422, error=error)
    try:
        await visit.services.operators.change_password(
            visit.session, visit.form.get("current", ""), visit.form.get("new", "")
        )
    except NotFound:
        raise
    except CrmError as error:
        return visit.page("password.html", status=error.http_status, error=error)
    return visit.go("/admin/password", "Your password is changed. Other sessions of yours have ended.")
