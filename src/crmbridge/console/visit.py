"""A visit: one request of one person, with all that a page needs to answer it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from litestar import MediaType, Response
from litestar.datastructures import Cookie

from crmbridge.console.admission import Cookies, Flash, form_token, sealed_flash
from crmbridge.console.rendering import render
from crmbridge.core.errors import CrmError, Fix, NotFound
from crmbridge.services import Services
from crmbridge.services.operators.model import Operator, Role, Session
from crmbridge.services.tenants.model import Tenant

__all__ = ["Page", "Visit", "expired_cookie", "link"]

Page = Response[Any]


class Visit:
    """What a page is handed. ``token`` is the session's (or, before sign-in, the visit's) secret."""

    def __init__(
        self,
        *,
        services: Services,
        cookies: Cookies,
        request_id: str,
        path: str,
        session: Session | None,
        token: str,
        flow: str,
        parameters: Mapping[str, Any],
        query: Mapping[str, str],
        form: Mapping[str, str],
        form_lists: Mapping[str, list[str]],
        address: str,
        user_agent: str,
        flash: Flash | None,
    ) -> None:
        self.services = services
        self.cookies = cookies
        self.request_id = request_id
        self.path = path
        self.session = session
        self.token = token
        self.flow = flow
        self.parameters = parameters
        self.query = query
        self.form = form
        self.form_lists = form_lists
        self.address = address
        self.user_agent = user_agent
        self.flash = flash

    @property
    def operator(self) -> Operator:
        """Who is signed in."""
        assert self.session is not None, "the route table lets nobody else come so far"
        return self.session.operator

    @property
    def actor(self) -> str:
        """How the audit log names the visitor."""
        return self.operator.actor

    def may(self, role: Role) -> bool:
        """Whether to offer what needs this role. The route table decides, not this."""
        return self.session is not None and self.operator.role.allows(role)

    async def tenant(self) -> Tenant:
        """The tenant in the path. Raises NotFound."""
        return await self.tenant_named(str(self.parameters["tenant"]))

    async def tenant_named(self, slug: str) -> Tenant:
        """By slug or id. Raises NotFound."""
        try:
            return await self.services.tenants.get(slug)
        except CrmError:
            raise NotFound(
                "There is no such tenant.", fix=Fix("check_tenant", "See the list of tenants.")
            ) from None

    # -- answers -----------------------------------------------------------------------------------------------

    def page(self, template: str, *, status: int = 200, **values: Any) -> Page:
        """A rendered page; the flash message, once shown, is gone."""
        html = render(
            template,
            visit=self,
            form_token=form_token(self.token) if self.token else "",
            is_operator=self.may(Role.OPERATOR),
            is_admin=self.may(Role.ADMIN),
            **values,
        )
        answer: Page = Response(html, status_code=status, media_type=MediaType.HTML)
        if self.flash is not None:
            answer.cookies.append(expired_cookie(self.cookies.flash, self.cookies))
        return answer

    def go(self, path: str, text: str = "", *, hint: str = "", kind: str = "done") -> Page:
        """On to another page (303), with a message there."""
        answer: Page = Response("", status_code=303, headers={"Location": path}, media_type=MediaType.TEXT)
        if text:
            value = sealed_flash(Flash(kind, text, hint), self.token)
            answer.cookies.append(self.cookie(self.cookies.flash, value, 120))
        return answer

    def back(self, path: str, error: CrmError) -> Page:
        """Back to a page with what went wrong. What is not there is told by the page for that."""
        if isinstance(error, NotFound):
            raise error
        return self.go(path, error.message, hint=error.fix.hint, kind="problem")

    def cookie(self, name: str, value: str, seconds: int | None = None) -> Cookie:
        """One of our cookies: this host only, not for scripts, not sent along by other sites' forms."""
        return Cookie(
            key=name,
            value=value,
            path="/",
            max_age=seconds,
            httponly=True,
            secure=self.cookies.is_secure,
            samesite="lax",
        )


def expired_cookie(name: str, cookies: Cookies) -> Cookie:
    """Makes the browser forget it."""
    return Cookie(
        key=name, value="", path="/", max_age=0, httponly=True, secure=cookies.is_secure, samesite="lax"
    )


def link(path: str, **query: Any) -> str:
    """An address with those parts of the query that are not empty."""
    given = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path
