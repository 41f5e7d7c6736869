"""What every call of the emulated athenahealth has in common: tokens, the practice, forms, errors, pages, slots."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation import Clock, Emulator, Incoming, Quota, Refusal, Row, Table, route
from crmbridge.emulation.faults import Fault

__all__ = ["V1", "EmulatedPractice", "day", "stamp"]

V1 = "/v1/{practice}"
PRACTICE, NOT_GRANTED = "195900", "195901"
DEPARTMENTS = {"1": "Harbour Clinic", "2": "Hillside Clinic"}
PROVIDERS = range(71, 79)
SCOPE = "athena/service/Athenanet.MDP.*"
SLOT_MINUTES = 30
EASTERN = ZoneInfo("America/New_York")


class EmulatedPractice(Emulator):
    """One app with one practice. The token of :meth:`secrets` has no end; those of the token endpoint have."""

    slug = "athenahealth"
    display_name = "athenahealth"

    def __init__(self, clock: Clock | None = None) -> None:
        self.tokens: dict[str, float] = {}
        super().__init__(clock)
        # Preview allows five token calls a minute; calls are those of a production app.
        self.quotas += [
            Quota(limit=5, per_seconds=60, only="token", name="token"),
            Quota(limit=100, per_seconds=1),
        ]

    def seed(self) -> None:
        self.tokens.clear()
        self.days: set[tuple[str, str]] = set()

    def settings(self) -> dict[str, str]:
        return {
            "practice_id": PRACTICE,
            "department_id": "1",
            "client_id": "emulated-client",
            "base_url": self.base_url,
            "write_patients": "yes",
            "write_appointments": "yes",
        }

    def secrets(self) -> dict[str, str]:
        return {"client_secret": self.secret("client_secret"), "access_token": self.secret("access_token")}

    # -- who calls -----------------------------------------------------------------------------------------

    @route("POST", "/oauth2/v1/token", operation="token", writes=False)
    def token(self, call: Incoming) -> HttpResponse:
        pair = f"emulated-client:{self.secrets()['client_secret']}"
        expected = "Basic " + base64.b64encode(pair.encode()).decode()
        if not hmac.compare_digest(call.headers.get("authorization", "").encode(), expected.encode()):
            return self.answer({"error": "invalid_client"}, 401)  # the exact body is UNCONFIRMED
        if call.form.get("grant_type") != ["client_credentials"]:
            return self.answer({"error": "unsupported_grant_type"}, 400)
        if call.form.get("scope") != [SCOPE]:
            return self.answer({"error": "invalid_scope"}, 400)
        token = self.secret(f"token {len(self.tokens)}")
        self.tokens[token] = self.clock.timestamp() + 3600
        tree = {"access_token": token, "token_type": "Bearer", "expires_in": "3600", "scope": SCOPE}
        return self.answer(tree)  # expires_in is seen as a number and as a text

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        if call.path == "/oauth2/v1/token":
            return None
        given = call.headers.get("authorization", "").removeprefix("Bearer ")
        is_issued = self.tokens.get(given, 0.0) > self.clock.timestamp()
        if not is_issued and not hmac.compare_digest(given.encode(), self.secrets()["access_token"].encode()):
            return self.gateway(401, "Developer Inactive")
        practice = call.path.split("/")[2] if call.path.startswith("/v1/") else PRACTICE
        if practice == NOT_GRANTED:
            return self.error(401, "Incorrect permissions.", "Bad auth.")
        if practice != PRACTICE:
            return self.error(404, "Invalid practice.", "The practice ID does not exist.")
        return None

    def gateway(self, status: int, text: str) -> HttpResponse:
        """Answers of the gateway are plain, whatever was asked for."""
        return HttpResponse(status=status, headers={"content-type": "text/html"}, body=text.encode())

    def error(self, status: int, error: str, detail: str = "", **more: Any) -> HttpResponse:
        tree = {"error": error, **({"detailedmessage": detail} if detail else {}), **more}
        return self.answer(tree, status)

    def refusal(self, status: int, error: str, detail: str = "", **more: Any) -> Refusal:
        return Refusal(self.error(status, error, detail, **more))

    def on_fault(self, fault: Fault, call: Incoming) -> HttpResponse:
        return self.error(fault.status, "Fault on demand")

    def on_limited(self, quota: Quota, wait_seconds: float, call: Incoming) -> HttpResponse:
        return self.gateway(429, "Too many requests")  # the body is UNCONFIRMED

    def on_unknown_route(self, call: Incoming) -> HttpResponse:
        return self.gateway(404, "Service not registered with API gateway.")

    # -- the practice --------------------------------------------------------------------------------------

    @route("GET", f"{V1}/ping", operation="ping")
    def ping(self, call: Incoming) -> HttpResponse:
        return self.answer({"pong": "true"})

    @route("GET", f"{V1}/departments", operation="departments.list")
    def list_departments(self, call: Incoming) -> HttpResponse:
        rows = [{"departmentid": one, "name": name} for one, name in DEPARTMENTS.items()]
        return self.answer({"totalcount": len(rows), "departments": rows})

    @route("GET", f"{V1}/departments/{{id}}", operation="departments.get")
    def get_department(self, call: Incoming) -> HttpResponse:
        department = self.department(call.params["id"])
        return self.answer([{"departmentid": department, "name": DEPARTMENTS[department]}])

    def department(self, text: str) -> str:
        if text not in DEPARTMENTS:
            raise self.refusal(404, "The requested ID does not exist.", "Department not found")
        return text

    # -- forms and pages -----------------------------------------------------------------------------------

    def form(self, call: Incoming, *required: str) -> dict[str, str]:
        """The form of a write; JSON bodies are not understood. Dates must be mm/dd/yyyy."""
        if call.body and "x-www-form-urlencoded" not in call.headers.get("content-type", ""):
            raise self.refusal(400, "Additional fields are required.", missingfields=list(required))
        given = call.fields
        if missing := [name for name in required if not given.get(name)]:
            raise self.refusal(400, "Additional fields are required.", missingfields=missing)
        if given.get("dob") and day(given["dob"]) is None:
            raise self.refusal(400, "The data provided is invalid.", "Expecting format mm/dd/yyyy for dob")
        return given

    def row(self, table: Table[int], text: str, what: str) -> Row[int]:
        row = table.get(int(text)) if text.isdigit() and len(text) < 19 else None
        if row is None:
            raise self.refusal(404, "The requested ID does not exist.", f"{what} not found")
        return row

    def page(self, call: Incoming, name: str, rows: list[dict[str, Any]]) -> HttpResponse:
        """An object with the named list; ``next`` is a relative URL."""
        limit, offset = int(call.first("limit", "1500")), int(call.first("offset", "0"))
        limit = min(max(limit, 1), 5000)
        tree: dict[str, Any] = {"totalcount": len(rows), name: rows[offset : offset + limit]}
        if len(rows) > offset + limit:
            asked = {key: values[0] for key, values in call.query.items()}
            tree["next"] = f"{call.path}?{urlencode({**asked, 'limit': limit, 'offset': offset + limit})}"
        return self.answer(tree)

    # -- slots ---------------------------------------------------------------------------------------------

    @property
    def appointments(self) -> Table[int]:
        return self.store.numbered("appointments", first_id=1_000_001)

    def open_days(self, department: str, days: Iterable[datetime]) -> None:
        """The schedule is open round the clock; a day's slots appear when somebody first looks."""
        written = self.store.written
        for at in days:
            date = at.strftime("%m/%d/%Y")
            if (department, date) in self.days:
                continue
            self.days.add((department, date))
            for minute in range(0, 1440, SLOT_MINUTES):
                for provider in PROVIDERS:
                    self.appointments.insert(
                        {
                            "date": date,
                            "starttime": f"{minute // 60:02d}:{minute % 60:02d}",
                            "duration": SLOT_MINUTES,
                            "departmentid": department,
                            "providerid": str(provider),
                            "appointmenttypeid": "82",
                            "appointmenttype": "Any 30",
                            "appointmentstatus": "o",
                            "patientid": "",
                        }
                    )
        self.store.written = written

    def _on(self, dates: Iterable[str]) -> list[Row[int]]:
        return [row for date in dates for row in self.appointments.find("date", date, with_archived=True)]

    @route("GET", f"{V1}/appointments/open", operation="appointments.open")
    def list_open(self, call: Incoming) -> HttpResponse:
        if not call.first("departmentid"):
            raise self.refusal(400, "Additional fields are required.", missingfields=["departmentid"])
        department = self.department(call.first("departmentid"))
        start = day(call.first("startdate")) or self.clock.now().astimezone(EASTERN).replace(tzinfo=None)
        end = day(call.first("enddate")) or start + timedelta(days=7)
        days = [start + timedelta(days=number) for number in range(min((end - start).days, 13) + 1)]
        self.open_days(department, days)
        dates = {at.strftime("%m/%d/%Y") for at in days}
        provider = call.first("providerid")
        rows = [
            {**_slot(row), "appointmentid": row.id, "duration": row.fields["duration"], "reasonid": ["-1"]}
            for row in sorted(self._on(dates), key=lambda row: row.id)
            if row.fields["appointmentstatus"] == "o"
            and row.fields["departmentid"] == department
            and provider in ("", row.fields["providerid"])
        ]
        return self.page(call, "appointments", rows)


def _slot(row: Row[int]) -> dict[str, Any]:
    names = ("date", "starttime", "departmentid", "providerid", "appointmenttypeid", "appointmenttype")
    return {name: row.fields[name] for name in names}


def day(text: str) -> datetime | None:
    """A day of the wire, None for any other text."""
    try:
        return datetime.strptime(text, "%m/%d/%Y")  # noqa: DTZ007 - a day has no zone
    except ValueError:
        return None


def stamp(moment: datetime) -> str:
    """A moment of the wire: Eastern, without a mark of it."""
    return moment.astimezone(EASTERN).strftime("%m/%d/%Y %H:%M:%S")
