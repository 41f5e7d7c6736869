"""What a person's browser does at a consent page, and no more: cookies, redirects, one form after the other."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from crmbridge.cli.problems import Problem
from crmbridge.core.wire import HttpRequest, HttpResponse, Transport, TransportFailure

__all__ = ["Browser", "Form", "Page", "first_form"]

_MOST_STEPS = 12
_REDIRECTS = (301, 302, 303, 307, 308)
_NEXT_COOKIE = re.compile(r",(?=\s*[^\s;,=]+=)")


@dataclass(frozen=True)
class Page:
    """Where the browser ended. ``title`` is what the page calls itself."""

    url: str
    status: int
    title: str


@dataclass
class Form:
    """A form as it would be sent: prefilled fields, and the first button that has a name."""

    action: str = ""
    method: str = "get"
    fields: dict[str, str] = field(default_factory=dict)


class Browser:
    """Visits a link and agrees to whatever is asked, on the hosts it may visit and no other."""

    def __init__(self, transport: Transport, hosts: frozenset[str]) -> None:
        self._transport = transport
        self._hosts = hosts
        self._cookies: dict[str, dict[str, str]] = defaultdict(dict)

    async def agree(self, url: str) -> Page:
        """Follows redirects and sends forms until a page without a form. Raises Problem."""
        request = HttpRequest(method="GET", url=url)
        for _ in range(_MOST_STEPS):
            answer = await self._send(request)
            location = answer.header("location")
            if answer.status in _REDIRECTS and location:
                request = _redirected(request, urljoin(request.url, location), answer.status)
                continue
            text = answer.body.decode(errors="replace")
            found = first_form(text) if answer.status < 400 else None
            if found is None:
                return Page(url=request.url, status=answer.status, title=_title_of(text))
            request = _filled(found, request.url)
        raise Problem(f"The consent came to no end after {_MOST_STEPS} pages.", code="consent_failed")

    async def _send(self, request: HttpRequest) -> HttpResponse:
        host = urlsplit(request.url).netloc
        if host not in self._hosts:
            raise Problem(
                f"The consent leads to {host}, which is no stand-in.",
                code="consent_failed",
                hint="The settings of the stand-in must name its own address for the consent page.",
            )
        cookies = self._cookies[host]
        request.headers = {"Accept": "text/html", **request.headers}
        if cookies:
            request.headers["Cookie"] = "; ".join(f"{name}={text}" for name, text in cookies.items())
        try:
            answer = await self._transport.send(request)
        except TransportFailure as failure:
            raise Problem(f"{host} does not answer: {failure.message}", code="consent_failed") from None
        for cookie in _NEXT_COOKIE.split(answer.header("set-cookie")):
            name, equals, rest = cookie.partition("=")
            if equals:
                cookies[name.strip()] = rest.partition(";")[0]
        return answer


def _redirected(request: HttpRequest, url: str, status: int) -> HttpRequest:
    """RFC 9110 section 15.4: 307 and 308 keep method and content, the others make a GET."""
    if status in (307, 308) and request.method != "GET":
        return HttpRequest(method=request.method, url=url, form=request.form)
    return HttpRequest(method="GET", url=url)


def _filled(found: Form, base: str) -> HttpRequest:
    url = urljoin(base, found.action) if found.action else base
    if found.method == "post":
        return HttpRequest(method="POST", url=url, form=dict(found.fields))
    # The query of the action is replaced by the fields, as browsers do.
    return HttpRequest(method="GET", url=url.partition("?")[0], query=dict(found.fields))


def _title_of(text: str) -> str:
    found = re.search(r"<title>([^<]*)</title>", text, re.IGNORECASE)
    return found.group(1).strip() if found else ""


def first_form(text: str) -> Form | None:
    """The first form of a page that can be sent, or None."""
    parser = _Forms()
    parser.feed(text)
    parser.close()
    return next((made for made in parser.forms if made.has_button), None)


class _Read(Form):
    has_button = False
    has_named_button = False


class _Forms(HTMLParser):
    """Reads forms: inputs as they are prefilled, the chosen option of a list, the first named button."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[_Read] = []
        self._open: _Read | None = None
        self._list = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: text or "" for name, text in attrs}
        if tag == "form":
            self._open = _Read(
                action=given.get("action", ""), method=given.get("method", "get").strip().lower()
            )
            self.forms.append(self._open)
        elif self._open is not None and "disabled" not in given:
            if tag == "input":
                self._input(self._open, given)
            elif tag == "button":
                self._button(self._open, given, given.get("type", "submit").lower())
            elif tag == "select":
                self._list = given.get("name", "")
            elif (
                tag == "option"
                and self._list
                and (self._list not in self._open.fields or "selected" in given)
            ):
                self._open.fields[self._list] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None
        elif tag == "select":
            self._list = ""

    def _input(self, form: _Read, given: Mapping[str, str]) -> None:
        kind, name = given.get("type", "text").lower(), given.get("name", "")
        if kind in ("submit", "image"):
            self._button(form, given, "submit")
        elif kind in ("button", "reset", "file") or not name:
            return
        elif kind in ("checkbox", "radio"):
            if "checked" in given:
                form.fields[name] = given.get("value", "on")
        else:
            form.fields[name] = given.get("value", "")

    @staticmethod
    def _button(form: _Read, given: Mapping[str, str], kind: str) -> None:
        if kind != "submit":
            return
        form.has_button = True
        if given.get("name") and not form.has_named_button:
            form.has_named_button = True
            form.fields[given["name"]] = given.get("value", "")
