"""A person in front of the console, without a browser: cookies, forms with their tokens, redirects not followed."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from crmbridge.console.server import build_console
from crmbridge.services import Services
from crmbridge.services.operators.model import Role

__all__ = ["BASE", "PASSWORD", "Visitor", "visitor"]

BASE = "http://localhost:8700"
PASSWORD = "seven quiet herons wade"


class Visitor:
    """``page`` is the last answer; :meth:`post` sends the token of the last page that had a form."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.token = ""

    async def get(self, path: str) -> httpx.Response:
        page = await self.http.get(path)
        self._note(page)
        return page

    async def post(self, path: str, form: dict[str, Any] | None = None, **rest: Any) -> httpx.Response:
        headers = {"Origin": str(self.http.base_url).rstrip("/"), **rest.pop("headers", {})}
        data = {"form_token": self.token, **(form or {})}
        page = await self.http.post(path, data=data, headers=headers, **rest)
        self._note(page)
        return page

    async def follow(self, page: httpx.Response) -> httpx.Response:
        """The page that a redirect leads to."""
        assert page.status_code == 303, page.text
        return await self.get(page.headers["location"])

    async def sign_in(self, email: str, password: str = PASSWORD) -> httpx.Response:
        await self.get("/admin/sign-in")
        page = await self.post("/admin/sign-in", {"email": email, "password": password})
        if page.status_code == 303:
            await self.get("/admin/password")
        return page

    def _note(self, page: httpx.Response) -> None:
        found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page.text)
        if found:
            self.token = found[1]


def text_of(page: httpx.Response) -> str:
    """What a reader sees of a page, roughly."""
    body = page.text.partition("<main")[2]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


@asynccontextmanager
async def visitor(
    services: Services, role: Role | None = Role.ADMIN, *, email: str = "", base: str = BASE
) -> AsyncIterator[Visitor]:
    """Somebody, signed in as a new operator of this role (None: not signed in)."""
    app: Any = build_console(services)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=base, timeout=30) as http:
        made = Visitor(http)
        if role is not None:
            email = email or f"{role.value}@example.com"
            await services.operators.add(email, f"Olga {role.value.title()}", role, PASSWORD, "test")
            assert (await made.sign_in(email)).status_code == 303
        yield made
