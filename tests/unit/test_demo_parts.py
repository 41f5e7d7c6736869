"""The demo's decisions by manifest, its cut of a file, and what its browser does at a consent page."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from crmbridge.cli.demo import parts
from crmbridge.cli.demo.browser import Browser, first_form
from crmbridge.cli.demo.plans import cut_rows, form_of, make_plan, way_of
from crmbridge.cli.demo.report import Result, show_results
from crmbridge.cli.output import Output
from crmbridge.cli.problems import Problem
from crmbridge.core.manifest import Auth, AuthKind, Budget, BudgetKind, Manifest, ObjectSpec, Setting
from crmbridge.core.operations import FULL, NEVER, Operation
from crmbridge.core.records import Object
from crmbridge.core.verticals import Vertical
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.emulation import Emulator

LEADS, PEOPLE = Path("leads.csv"), Path("people.csv")


def manifest(*objects: Object, batch: int = 1, **rest: Any) -> Manifest:
    specs = {
        obj: ObjectSpec(native="x", operations={Operation.CREATE: FULL}, batch={Operation.CREATE: batch})
        for obj in objects
    }
    given: dict[str, Any] = {"auth": Auth(kind=AuthKind.OAUTH_CODE), "objects": specs, **rest}
    return Manifest(slug="acme", display_name="Acme", api_version="1", pages=(), read_on="", **given)


def burst(limit: int, seconds: float) -> Budget:
    return Budget(kind=BudgetKind.BURST, limit=limit, per_seconds=seconds)


@pytest.mark.parametrize(
    ("objects", "verticals", "wanted"),
    [
        ((Object.LEAD, Object.CUSTOMER), ("general",), (Object.LEAD, Vertical.REAL_ESTATE, LEADS)),
        ((Object.CUSTOMER,), ("clinic",), (Object.CUSTOMER, Vertical.CLINIC, PEOPLE)),
        ((Object.LEAD,), ("salon", "real_estate"), (Object.LEAD, Vertical.REAL_ESTATE, LEADS)),
        ((Object.NOTE,), ("salon",), (None, Vertical.SALON, PEOPLE)),
    ],
)
def test_plan_when_made_then_trade_object_and_file_are_those_of_the_manifest(
    objects: tuple[Object, ...], verticals: tuple[str, ...], wanted: tuple[Any, ...]
) -> None:
    plan = make_plan(manifest(*objects, verticals=verticals), LEADS, PEOPLE, is_named=False)
    assert (plan.object, plan.vertical, plan.source) == wanted


def test_plan_when_leads_are_never_created_then_customers() -> None:
    spec = ObjectSpec(native="x", operations={Operation.CREATE: NEVER("no leads", "https://x.example")})
    made = manifest(Object.CUSTOMER)
    made.objects[Object.LEAD] = spec
    assert make_plan(made, LEADS, PEOPLE, is_named=False).object is Object.CUSTOMER


@pytest.mark.parametrize(
    ("budgets", "batch", "most"),
    [
        ((), 1, None),
        ((burst(600, 60),), 1, 300),
        ((burst(10, 1),), 1, 150),
        ((burst(10, 1),), 100, 15_000),
        ((burst(10, 1), burst(100, 3600)), 1, 50),
        ((Budget(kind=BudgetKind.CONCURRENT, limit=1),), 1, None),
        ((burst(1, 1),), 1, 30),
    ],
)
def test_plan_when_a_budget_is_declared_then_half_of_it_bounds_the_rows(
    budgets: tuple[Budget, ...], batch: int, most: int | None
) -> None:
    plan = make_plan(manifest(Object.LEAD, batch=batch, budgets=budgets), LEADS, PEOPLE, is_named=False)
    assert plan.most == most
    assert bool(plan.why) == (most is not None)


def test_form_when_made_then_only_what_is_asked_for_and_by_consent_no_client_nor_stand_in_secret() -> None:
    class Emulated:
        def settings(self) -> dict[str, str]:
            return {"url": "http://x", "client_id": "c", "other": "?"}

        def secrets(self) -> dict[str, str]:
            return {"client_secret": "s", "key": "k", "pin": "p"}

    def setting(name: str, **more: Any) -> Setting:
        return Setting(name=name, label=name, help=name, **more)

    settings = (
        setting("url"),
        setting("client_id"),
        setting("client_secret", is_secret=True),
        setting("key", is_secret=True, is_required=False),
        setting("pin", is_secret=True),
    )
    made = manifest(settings=settings)
    assert form_of(made, Emulated()) == {"url": "http://x", "pin": "p"} and way_of(made) == "consent"
    by_form = manifest(settings=settings, auth=Auth(kind=AuthKind.CLIENT_CREDENTIALS))
    assert set(form_of(by_form, Emulated())) == {"url", "client_id", "client_secret", "key", "pin"}
    assert way_of(by_form) == "token"


@pytest.mark.parametrize(
    ("name", "text", "most", "kept"),
    [
        ("a.csv", 'h,i\r\n"1\r\nx",2\r\n3,4\r\n5,6\r\n', 2, 'h,i\r\n"1\r\nx",2\r\n3,4\r\n'),
        ("a.csv", "h\n1\n2", 2, "h\n1\n2"),
        ("a.csv", "h\n1\n2", None, "h\n1\n2"),
        ("a.jsonl", '{"a": "\\""}\n{}\n{}\n', 2, '{"a": "\\""}\n{}\n'),
    ],
)
def test_cut_when_cells_hold_line_breaks_then_whole_rows_are_kept(
    tmp_path: Path, name: str, text: str, most: int | None, kept: str
) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert cut_rows(tmp_path / name, tmp_path / "out", most) == (kept != text)
    assert (tmp_path / "out").read_bytes().decode() == kept


# ---------------------------------------------------------------- browser

CONSENT = """<!doctype html><title>Consent</title>
<form action="/search"><input name="q"></form>
<form method="POST" action="decide?step=1">
<input type="hidden" name="state" value="a&amp;b"><input type="checkbox" name="no" value="1">
<input type="checkbox" name="yes" checked><input disabled name="off" value="1"><input name="user" value="ann">
<select name="site"><option value="eu">EU<option value="us" selected>US</select>
<button type="button" name="help" value="1">?</button>
<button name="decision" value="allow">Allow</button><button name="decision" value="deny">Deny</button></form>"""


def test_form_when_read_then_what_a_person_would_send_with_the_first_button() -> None:
    found = first_form(CONSENT)
    assert found is not None and found.method == "post" and found.action == "decide?step=1"
    assert found.fields == {
        "state": "a&b",
        "yes": "on",
        "user": "ann",
        "site": "us",
        "decision": "allow",
    }
    assert first_form("<p>no form</p>") is None and first_form("<form><input name=a></form>") is None


class Net:
    """Pages by ``METHOD url``; remembers requests."""

    def __init__(self, pages: dict[str, HttpResponse]) -> None:
        self.pages = pages
        self.seen: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.seen.append(request)
        return self.pages[f"{request.method} {request.full_url()}"]


def redirect(to: str, **headers: str) -> HttpResponse:
    return HttpResponse(status=302, headers={"location": to, **headers})


def html(text: str, **headers: str) -> HttpResponse:
    return HttpResponse(status=200, headers={"content-type": "text/html", **headers}, body=text.encode())


OUR, THEIR = "http://127.0.0.1:1", "http://127.0.0.1:2"
HOSTS = frozenset({"127.0.0.1:1", "127.0.0.1:2"})


async def test_browser_when_it_agrees_then_cookies_go_back_to_their_own_host_only() -> None:
    cookie = {"set-cookie": "one=1; Path=/; Expires=Wed, 25 Nov 2026 10:00:00 GMT, two=2; HttpOnly"}
    net = Net(
        {
            f"GET {OUR}/begin": redirect(f"{THEIR}/a/authorize?x=1", **cookie),
            f"GET {THEIR}/a/authorize?x=1": html(CONSENT, **{"set-cookie": "s=3"}),
            f"POST {THEIR}/a/decide?step=1": redirect(f"{OUR}/callback?code=c"),
            f"GET {OUR}/callback?code=c": html("<title>Connected</title>"),
        }
    )
    page = await Browser(net, HOSTS).agree(f"{OUR}/begin")
    assert (page.status, page.title) == (200, "Connected") and page.url.startswith(f"{OUR}/callback")
    sent = [request.headers.get("Cookie") for request in net.seen]
    assert sent == [None, None, "s=3", "one=1; two=2"]
    assert net.seen[2].form is not None and net.seen[2].form["decision"] == "allow"


async def test_browser_when_led_to_a_stranger_then_refuses_to_go_there() -> None:
    net = Net({f"GET {OUR}/begin": redirect("https://login.acme.example/authorize")})
    with pytest.raises(Problem, match=r"login\.acme\.example"):
        await Browser(net, HOSTS).agree(f"{OUR}/begin")
    assert len(net.seen) == 1


async def test_browser_when_pages_go_in_circles_then_gives_up() -> None:
    net = Net({f"GET {OUR}/begin": redirect("/begin")})
    with pytest.raises(Problem, match="no end"):
        await Browser(net, HOSTS).agree(f"{OUR}/begin")


# ---------------------------------------------------------------- report


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({}, ""),
        ({"delivered": 8, "given_up": 2, "held": 8, "good": 8}, ""),
        ({"delivered": 8, "given_up": 2, "held": 8}, "1 good rows are not delivered"),
        ({"given_up": 0, "delivered": 9, "held": 9}, "1 accepted rows have no end"),
        ({"delivered": 4, "given_up": 6, "held": 4, "good": 0}, "only 4 of 10 accepted rows are delivered"),
        ({"held": 9}, "1 records are missing in the CRM"),
        ({"held": 12}, "2 records too many in the CRM"),
        ({"error": "auth_error: no"}, "auth_error: no"),
        ({"error": "x", "refusal": "reserved"}, ""),
    ],
)
def test_result_when_something_is_amiss_then_it_complains(change: dict[str, Any], complaint: str) -> None:
    sound = {"accepted": 10, "delivered": 10, "given_up": 0, "good": 9, "held": 10}
    assert Result(slug="acme", **(sound | change)).complaints == ([complaint] if complaint else [])


@pytest.mark.parametrize("width", [80, 100, 112])
def test_table_when_the_terminal_is_narrow_then_no_line_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    numbers: dict[str, Any] = dict.fromkeys(
        ("read", "accepted", "delivered", "given_up", "good", "held", "calls", "rejected"), 1000
    )
    result = Result(slug="custom_webhook", way="consent", object="customer", seconds=0.1, **numbers)
    show_results(Output(), [result])
    lines = capsys.readouterr().out.splitlines()
    assert "custom_webhook" in lines[1] and "delivered" in lines[0] and lines[2] == ""
    assert ("CRM holds" in lines[0], "rejected" in lines[0]) == (width >= 100, width >= 112)
    assert all(len(line.rstrip()) <= width for line in lines)


# ---------------------------------------------------------------- ports


async def test_emulators_when_a_port_is_taken_in_between_then_others_are_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Standing(Emulator):
        slug = "acme"

    probed: set[int] = set()
    plain_probe = parts.free_port
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", plain_probe(probed)))
        stranger.listen()
        stolen = stranger.getsockname()[1]
        offered = iter([stolen])
        monkeypatch.setattr(parts, "free_port", lambda taken: next(offered, None) or plain_probe(taken))
        served = await parts._serve({"acme": Standing()}, probed)
    try:
        assert str(stolen) not in served.url and set(served.urls) == {"acme"}
    finally:
        await served.close()
