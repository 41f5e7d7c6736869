"""What a migration may not do while processes of the version before go on: read from its text.

Not a parser of SQL: comments, texts and bodies of functions are taken out, the rest is looked at statement by
statement. What is done inside a ``do`` block is looked at as well, and a text that is executed there is refused, for
nobody can read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["BREAKS", "LOCKS", "Finding", "findings_in"]

# Two kinds: a statement that breaks a running process of the version before, and one that holds a lock for as long as
# it reads or writes a whole table. The first may stand in a file that ends in _from_NNNN; the second never.
BREAKS, LOCKS = "breaks", "locks"


@dataclass(frozen=True)
class Finding:
    """One statement against one rule."""

    kind: str
    rule: str
    statement: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.statement[:120]}"


_SPACE = re.compile(r"\s+")
_PIECES = re.compile(
    r"--[^\n]*|/\*.*?\*/|(?P<text>'(?:[^']|'')*')|(?P<tag>\$[a-z_]*\$)(?P<body>.*?)(?P=tag)", re.S | re.I
)
_NAME = r'(?:if exists |if not exists |only )?"?(?:crmbridge\.)?"?([a-z0-9_]+)"?'
_TABLE = re.compile(rf"^create (?:unlogged )?table {_NAME}", re.I)
_OTHERS = re.compile(rf"^create (?:or replace )?(?:function|view|type) {_NAME}", re.I)
_ALTER = re.compile(rf"^alter table {_NAME} (.*)$", re.I)
_INDEX = re.compile(
    rf"^create (unique )?index (concurrently )?(?:if not exists )?([a-z0-9_]+) on {_NAME}", re.I
)
# Anything else may differ per row, so the table is written anew.
_CONSTANT = re.compile(r"default (?:now\(\)|true|false|null|-?[0-9.]+|'[^']*'(?:::[a-z\[\]]+)?)", re.I)

# Statements, whatever they are about.
_ANYWHERE: tuple[tuple[str, str, str], ...] = (
    (BREAKS, "drop", r"^drop (table|view|function|type|schema|sequence|policy|trigger|role|column)\b"),
    (BREAKS, "rename", r"^alter (table|view|function|type|schema|sequence|policy|index)\b.* rename "),
    (BREAKS, "move", r"^alter (table|view|function|type)\b.* set schema "),
    (BREAKS, "revoke", r"^revoke\b"),
    (BREAKS, "change policy", r"^alter policy\b"),
    (LOCKS, "lock table", r"^lock\b"),
    (LOCKS, "rewrite table", r"^(vacuum full|cluster|truncate|reindex (?!.*concurrently))"),
    (LOCKS, "drop index", r"^drop index (?!concurrently)"),
    (LOCKS, "refresh view", r"^refresh materialized view (?!concurrently)"),
)
# Parts of an ``alter table`` of a table that was there before.
_PARTS: tuple[tuple[str, str, str], ...] = (
    (
        BREAKS,
        "drop column",
        r"^drop (?:column )?(?!constraint|default|not null|expression)(?:if exists )?\w+",
    ),
    (BREAKS, "set not null", r"alter (?:column )?\w+ set not null"),
    (BREAKS, "drop default", r"alter (?:column )?\w+ drop default"),
    (BREAKS, "change type", r"alter (?:column )?\w+ (?:set data )?type\b"),
    (BREAKS, "row security", r"^(?:enable|force) row level security"),
    (LOCKS, "unvalidated check", r"^add (?:constraint \w+ )?check\b(?!.*not valid)"),
    (LOCKS, "unvalidated key", r"^add (?:constraint \w+ )?foreign key\b(?!.*not valid)"),
    (
        LOCKS,
        "unique without index",
        r"^add (?:constraint \w+ )?(?:unique|primary key|exclude)\b(?! using index)",
    ),
    (LOCKS, "rewrite table", r"^set (?:logged|unlogged|tablespace|access method)\b"),
    (LOCKS, "move partition", r"^attach partition\b|^detach partition\b(?!.*concurrently)"),
)


def findings_in(text: str) -> list[Finding]:
    """Everything in one file that is against a rule. ``text`` is the whole file."""
    fresh: set[str] = set()
    found: list[Finding] = []
    outside = "-- transaction: false" in "\n".join(text.splitlines()[:5])
    statements = list(_statements(text))
    for statement in statements:
        for pattern in (_TABLE, _OTHERS):
            if match := pattern.match(statement):
                fresh.add(match[1].lower())
    for statement in statements:
        found += _looked_at(statement, fresh, statements, outside=outside)
    return found


def _statements(text: str) -> Iterator[str]:
    """One per line, without comments, texts emptied, lower case; those of ``do`` blocks too."""
    inner: list[str] = []

    def piece(match: re.Match[str]) -> str:
        if match["text"] is not None:
            # A name is let stand, for functions that are called with a table.
            return match["text"] if re.fullmatch(r"'[a-z_.]+'", match["text"]) else "''"
        if match["body"] is not None:
            before = text[: match.start()].rpartition(";")[2]
            if re.search(r"\bdo\s*$", _bare(before), re.I):
                inner.append(match["body"])
            return "$$"
        return " "

    for part in _PIECES.sub(piece, text).split(";"):
        if told := _SPACE.sub(" ", part).strip().lower():
            yield told
    for body in inner:
        for part in re.split(r";|\bbegin\b|\bloop\b|\bthen\b|\belse\b", _bare(body), flags=re.I):
            if told := _SPACE.sub(" ", part).strip().lower():
                yield told


def _bare(text: str) -> str:
    return re.sub(r"--[^\n]*|/\*.*?\*/", " ", text, flags=re.S)


def _looked_at(statement: str, fresh: set[str], all_of_it: list[str], *, outside: bool) -> Iterator[Finding]:
    for kind, rule, shape in _ANYWHERE:
        if re.search(shape, statement) and not _is_about(statement, fresh):
            yield Finding(kind, rule, statement)
    if statement.startswith("execute "):
        yield Finding(LOCKS, "execute", statement)
    if (match := _ALTER.match(statement)) and match[1] not in fresh:
        for part in _parts_of(match[2]):
            yield from _altered(part)
    if (match := _INDEX.match(statement)) and match[4] not in fresh:
        if match[1]:
            # Processes of the version before do not know that something must be unique now.
            yield Finding(BREAKS, "unique index", statement)
        if not match[2] or not outside:
            yield Finding(LOCKS, "index without concurrently", statement)
        elif f"drop index concurrently if exists {match[3]}" not in all_of_it or len(all_of_it) != 2:
            # What a build that failed leaves behind is invalid: the next run must begin with its removal.
            yield Finding(LOCKS, "index not repeatable", statement)
    if outside and not any("concurrently" in one for one in all_of_it):
        yield Finding(LOCKS, "no transaction", statement)
    if (match := re.match(rf"^create (?:or replace )?trigger \w+ .* on {_NAME} ", f"{statement} ")) and match[
        1
    ] not in fresh:
        yield Finding(BREAKS, "trigger", statement)
    if (match := re.match(rf"^(?:update|delete from) {_NAME}", statement)) and match[1] not in fresh:
        yield Finding(LOCKS, "whole table", statement)
    if (match := re.match(r"^select isolate_by_tenant\( ?'([a-z_.]+)'", statement)) and match[1] not in fresh:
        yield Finding(BREAKS, "row security", statement)
    if re.match(r"^create (?:or replace )?function", statement) and statement.startswith("create or replace"):
        # Same name and arguments: the version before calls it too.
        yield Finding(BREAKS, "replace function", statement)


def _altered(part: str) -> Iterator[Finding]:
    for kind, rule, shape in _PARTS:
        if re.search(shape, part):
            yield Finding(kind, rule, part)
    if not (match := re.match(r"^add (?:column )?(?:if not exists )?(\w+) (.*)$", part)):
        return
    if match[1] in ("constraint", "check", "foreign", "unique", "primary", "exclude"):
        return
    if re.search(r"\bnot null\b", match[2]) and "default" not in match[2] and "generated" not in match[2]:
        yield Finding(BREAKS, "column without default", part)
    if "default" in match[2] and not _CONSTANT.search(match[2]):
        yield Finding(LOCKS, "default per row", part)
    if re.search(r"\bgenerated\b|\b(big|small)?serial\b", match[2]):
        yield Finding(LOCKS, "default per row", part)
    if re.search(r"\bunique\b|\bprimary key\b", match[2]):
        yield Finding(LOCKS, "unique without index", part)
    if re.search(r"\bcheck\b", match[2]):
        yield Finding(LOCKS, "unvalidated check", part)


def _is_about(statement: str, fresh: set[str]) -> bool:
    """Whether every statement of this kind is about what the same file made."""
    names = set(re.findall(r"[a-z0-9_]+", statement))
    return bool(names & fresh)


def _parts_of(text: str) -> list[str]:
    """The actions of one ``alter table``, split at commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
