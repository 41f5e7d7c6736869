"""Adding, changing and disabling operators; signing in and out."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg
from argon2 import PasswordHasher

from crmbridge.core.errors import Conflict, CrmError, FieldError, Fix, NotFound, RateLimited, ValidationError
from crmbridge.core.ids import new_id
from crmbridge.db.pool import Database
from crmbridge.services.audit import AuditEntry, AuditLog
from crmbridge.services.operators import store
from crmbridge.services.operators.model import (
    Identity,
    OidcRefused,
    Operator,
    Role,
    Session,
    SignedIn,
    SignInRefused,
)
from crmbridge.services.operators.oidc import Oidc
from crmbridge.services.operators.passwords import Passwords
from crmbridge.services.operators.rules import (
    IDLE_SECONDS,
    MOST_CHARACTERS,
    SESSION_SECONDS,
    Throttle,
    new_password,
    normal_email,
    password_problems,
    pause_after,
)

__all__ = ["Operators"]

_TOKEN_CHARACTERS = 43
_AGENT_CHARACTERS = 100
_ELSEWHERE = "Use the button of the sign-in page."


class Operators:
    """The people of the console. Every step is a row of the system's audit log; people are named there by id."""

    def __init__(
        self,
        db: Database,
        audit: AuditLog,
        *,
        hasher: PasswordHasher | None = None,
        throttle: Throttle | None = None,
        oidc: Oidc | None = None,
    ) -> None:
        self._db = db
        self._audit = audit
        self._passwords = Passwords(hasher)
        self._throttle = throttle or Throttle()
        self.oidc = oidc

    # ------------------------------------------------------------------ operators

    async def add(
        self, email: str, name: str, role: Role | str, password: str | None, actor: str
    ) -> tuple[Operator, str]:
        """A new operator. Without a password one is made and answered, once; else the second part is empty.

        Raises ValidationError naming every wrong field, or Conflict when the e-mail address is taken.
        """
        name = " ".join(name.split())
        login = normal_email(email)
        problems = []
        if not login:
            problems.append(FieldError("email", "must be an e-mail address, as ann@example.com"))
        if not 1 <= len(name) <= 200 or not name.isprintable():
            problems.append(FieldError("name", "must have 1 to 200 characters"))
        problems += _role_problems(role)
        made = new_password() if password is None else ""
        problems += _password_fields(made or password or "", login, name)
        _raise(problems)
        hashed = await self._passwords.hash(made or password or "")
        async with self._db.system() as conn:
            operator = await store.insert(conn, new_id(), login, name, Role(role).value, hashed, actor)
            if operator is None:
                raise Conflict(
                    "There is an operator with this e-mail address already.",
                    fix=Fix("choose_other", "Use another address, or change the operator who is there."),
                    fields=(FieldError("email", "is taken"),),
                )
            await self._tell(conn, actor, "operator.created", operator.id, {"role": operator.role.value})
        return operator, made

    async def are_there(self) -> bool:
        """Whether anyone may sign in."""
        async with self._db.system() as conn:
            return await store.are_there(conn)

    async def list(self) -> list[Operator]:
        """All, disabled ones included, in order of e-mail address."""
        async with self._db.system() as conn:
            return await store.select_all(conn)

    async def get(self, id_or_email: UUID | str) -> Operator:
        """By id or e-mail address. Raises NotFound."""
        async with self._db.system() as conn:
            if isinstance(id_or_email, UUID):
                return _found(await store.select(conn, id_or_email))
            return _found(await store.select_by_email(conn, normal_email(id_or_email)))

    async def disable(self, operator_id: UUID, actor: str) -> Operator:
        """End all sessions and let nobody sign in as this operator. Raises NotFound, Conflict (the last admin)."""
        async with self._db.system() as conn:
            await self._keep_an_admin(conn, operator_id)
            operator = _found(await store.set_disabled(conn, operator_id, True))
            await store.end_sessions_of(conn, operator_id)
            await self._tell(conn, actor, "operator.disabled", operator_id)
        return operator

    async def enable(self, operator_id: UUID, actor: str) -> Operator:
        """Let a disabled operator sign in again, with the password of before. Raises NotFound."""
        async with self._db.system() as conn:
            operator = _found(await store.set_disabled(conn, operator_id, False))
            await self._tell(conn, actor, "operator.enabled", operator_id)
        return operator

    async def set_role(self, operator_id: UUID, role: Role | str, actor: str) -> Operator:
        """Counts from the next page on. Raises ValidationError, NotFound, Conflict (the last admin)."""
        _raise(_role_problems(role))
        async with self._db.system() as conn:
            before = _found(await store.select(conn, operator_id))
            if Role(role) is not Role.ADMIN:
                await self._keep_an_admin(conn, operator_id)
            operator = _found(await store.set_role(conn, operator_id, Role(role).value))
            details = {"from": before.role.value, "to": operator.role.value}
            await self._tell(conn, actor, "operator.role_changed", operator_id, details)
        return operator

    async def set_password(self, operator_id: UUID, password: str | None, actor: str) -> tuple[Operator, str]:
        """A new password (made and answered when None), by somebody else: ends all sessions of this operator.

        Raises NotFound, ValidationError.
        """
        operator = await self.get(operator_id)
        made = new_password() if password is None else ""
        return await self._save_password(operator, made or password or "", actor, but=None), made

    async def change_password(self, session: Session, current: str, new: str) -> Operator:
        """One's own password; other sessions end, this one goes on. Raises ValidationError, RateLimited."""
        operator = session.operator
        self._check_address(f"password of {operator.id}")
        async with self._db.system() as conn:
            known = await store.password_hash_of(conn, operator.id)
        if not await self._passwords.is_right(known, current[: MOST_CHARACTERS + 1]):
            _raise([FieldError("current", "is not your password")])
        if current == new:
            _raise([FieldError("new", "is the one that you have")])
        return await self._save_password(operator, new, operator.actor, but=session.id, field="new")

    async def _save_password(
        self, operator: Operator, password: str, actor: str, *, but: UUID | None, field: str = "password"
    ) -> Operator:
        _raise(_password_fields(password, operator.email, operator.name, field))
        hashed = await self._passwords.hash(password)
        async with self._db.system() as conn:
            saved = _found(await store.set_password(conn, operator.id, hashed))
            await store.end_sessions_of(conn, operator.id, but)
            await self._tell(conn, actor, "operator.password_changed", operator.id)
        return saved

    async def _keep_an_admin(self, conn: asyncpg.Connection, operator_id: UUID) -> None:
        if await store.lock_admins(conn) == {operator_id}:
            raise Conflict(
                "This is the only admin.",
                fix=Fix("add_admin", "Make another operator an admin first."),
            )

    # ------------------------------------------------------------------ sessions

    async def sign_in(
        self, email: str, password: str, *, address: str = "", user_agent: str = "", request_id: str = ""
    ) -> SignedIn:
        """A new session. Takes as long for a name that nobody has.

        Raises SignInRefused (whatever the reason), RateLimited (this network address tries too often).
        """
        self._check_address(address)
        if self.oidc is not None and self.oidc.is_required:
            raise SignInRefused("Sign-in by password is off.", fix=Fix("sign_in_elsewhere", _ELSEWHERE))
        login = normal_email(email)
        async with self._db.system() as conn:
            attempt = await store.attempt(conn, login) if login else None
            # Counted before the password is looked at: tries at the same moment cannot pass the pause by.
            failures = attempt.failed_count + 1 if attempt else 0
            if attempt is not None:
                await store.count_attempt(conn, attempt.id, pause_after(failures))
        known = attempt.password_hash if attempt else ""
        is_right = await self._passwords.is_right(known, password[: MOST_CHARACTERS + 1])
        if attempt is None or not is_right:
            await self._tell_failure(login, attempt, failures, request_id)
            raise SignInRefused(
                "The e-mail address or the password is not right.", subcode="invalid_credentials"
            )
        stronger = await self._passwords.hash(password) if self._passwords.is_outdated(known) else ""
        async with self._db.system() as conn:
            await store.signed_in(conn, attempt.id)
            if stronger:
                await store.rehash(conn, attempt.id, known, stronger)
            signed = await self._open_session(conn, attempt.id, user_agent, request_id)
        self._throttle.give_back(address)
        return signed

    async def sign_in_elsewhere(
        self,
        cookie: str,
        visit: str,
        answer: Mapping[str, str],
        *,
        address: str = "",
        user_agent: str = "",
        request_id: str = "",
    ) -> tuple[SignedIn, str]:
        """A new session for who comes back from the OpenID provider, and the page that was asked for.

        ``answer`` is the callback's query, ``cookie`` the flow's and ``visit`` the visit's. The operator is found by
        the bound identity, else by the verified e-mail address, which binds it; nobody is created. Raises OidcRefused,
        RateLimited, NotFound (not configured), Unavailable (the provider).
        """
        oidc = self.oidc
        if oidc is None:
            raise NotFound("There is no such page.")
        self._check_address(address)
        try:
            flow = await oidc.open(cookie, visit, answer.get("state", ""))
            async with self._db.system() as conn:
                is_first = await store.spend_flow(conn, flow.state_hash, flow.expires)
            if not is_first:
                raise OidcRefused("flow_used")
            identity = await oidc.identify(flow, answer)
            async with self._db.system() as conn:
                operator, is_new = await self._identified(conn, identity)
                await store.signed_in_elsewhere(conn, operator.id)
                how = {"method": "oidc", "bound": True} if is_new else {"method": "oidc"}
                signed = await self._open_session(conn, operator.id, user_agent, request_id, how)
        except CrmError as error:
            reason = error.reason if isinstance(error, OidcRefused) else error.code
            known = error.operator_id if isinstance(error, OidcRefused) else None
            async with self._db.system() as conn:
                details = {"method": "oidc", "reason": reason}
                await self._tell(conn, "nobody", "operator.sign_in_failed", known, details, request_id)
            raise
        self._throttle.give_back(address)
        return signed, flow.next

    async def _identified(self, conn: asyncpg.Connection, identity: Identity) -> tuple[Operator, bool]:
        """The operator of an identity, and whether it is bound just now."""
        known = await store.select_by_subject(conn, identity.subject)
        email = normal_email(identity.email)
        if known is None and email:
            if not identity.is_verified:
                raise OidcRefused("email_unverified")
            bound = await store.bind_subject(conn, email, identity.subject)
            if bound is not None:
                return bound, True
            # Bound by another tab at this moment, perhaps.
            known = await store.select_by_subject(conn, identity.subject)
            if known is None:
                found = await store.select_by_email(conn, email)
                raise OidcRefused("nobody", operator_id=found.id if found else None)
        if known is None or known.disabled_at is not None:
            raise OidcRefused("nobody", operator_id=known.id if known else None)
        return known, False

    async def _open_session(
        self,
        conn: asyncpg.Connection,
        operator_id: UUID,
        user_agent: str,
        request_id: str,
        details: dict[str, Any] | None = None,
    ) -> SignedIn:
        token = secrets.token_urlsafe(32)
        await store.end_old_sessions(conn, IDLE_SECONDS)
        agent = "".join(char for char in user_agent if char.isprintable())[:_AGENT_CHARACTERS]
        await store.insert_session(conn, new_id(), operator_id, _hash(token), agent, SESSION_SECONDS)
        found = await store.session(conn, _hash(token), IDLE_SECONDS)
        if found is None:  # disabled while the password was looked at
            raise SignInRefused("This operator may not sign in.", subcode="invalid_credentials")
        await self._tell(conn, found.operator.actor, "operator.signed_in", operator_id, details, request_id)
        return SignedIn(token=token, session=found)

    async def session(self, token: str) -> Session | None:
        """The session of a cookie; None when it is unknown or has ended."""
        if len(token) != _TOKEN_CHARACTERS or not token.isascii():
            return None
        async with self._db.system() as conn:
            return await store.session(conn, _hash(token), IDLE_SECONDS)

    async def sign_out(self, session: Session, request_id: str = "") -> None:
        """End it; again is no error."""
        async with self._db.system() as conn:
            if await store.end_session(conn, session.id):
                operator = session.operator
                await self._tell(
                    conn, operator.actor, "operator.signed_out", operator.id, request_id=request_id
                )

    def _check_address(self, address: str) -> None:
        wait = self._throttle.take(address)
        if wait:
            raise RateLimited(
                "There were too many tries from this network address.",
                retry_after_seconds=wait,
                fix=Fix("wait", f"Wait {max(1, round(wait))} seconds, then try again."),
            )

    async def _tell_failure(
        self, login: str, attempt: store.Attempt | None, failures: int, request_id: str
    ) -> None:
        async with self._db.system() as conn:
            known = attempt.id if attempt else None
            if known is None and login:
                # Paused or disabled: the row names whom it concerns all the same.
                found = await store.select_by_email(conn, login)
                known = found.id if found else None
            details: dict[str, Any] = {"failures": failures} if attempt else {"refused_unseen": True}
            await self._tell(conn, "nobody", "operator.sign_in_failed", known, details, request_id)
            pause = pause_after(failures)
            if attempt is not None and pause:
                await self._tell(
                    conn, "system", "operator.locked", known, {"seconds": pause, "failures": failures}
                )

    async def _tell(
        self,
        conn: asyncpg.Connection,
        actor: str,
        action: str,
        operator_id: UUID | None,
        details: dict[str, Any] | None = None,
        request_id: str = "",
    ) -> None:
        await self._audit.write(
            conn,
            AuditEntry(
                tenant_id=None,
                actor=actor,
                action=action,
                subject_id=str(operator_id or ""),
                request_id=request_id,
                details=details or {},
            ),
        )


def _hash(token: str) -> bytes:
    # 256 random bits need no slow hash and no salt.
    return hashlib.sha256(token.encode()).digest()


def _found(operator: Operator | None) -> Operator:
    if operator is None:
        raise NotFound("There is no such operator.", fix=Fix("check_id", "See `crmbridge operators list`."))
    return operator


def _role_problems(role: Role | str) -> list[FieldError]:
    known = [each.value for each in Role]
    return [] if role in known else [FieldError("role", f"must be one of {', '.join(known)}")]


def _password_fields(password: str, email: str, name: str, field: str = "password") -> list[FieldError]:
    return [FieldError(field, text) for text in password_problems(password, email=email, name=name)]


def _raise(problems: list[FieldError]) -> None:
    if problems:
        raise ValidationError(
            "; ".join(f"{problem.field} {problem.message}" for problem in problems) + ".",
            fields=tuple(problems),
            fix=Fix("correct_fields", "Correct the named fields and try again."),
        )
