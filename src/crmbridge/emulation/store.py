"""EmulatorStore: tables of rows in plain dicts, in insertion order, stamped by the emulator's clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar

from crmbridge.emulation.clock import Clock

__all__ = ["EmulatorStore", "Row", "RowId", "Table"]

RowId = TypeVar("RowId", bound=int | str)
_NEVER_INDEXED: tuple[Any, ...] = (None, "", False)


class Row(Generic[RowId]):
    """One record: ``fields`` is the provider's plain dict. Changed only through its table."""

    __slots__ = ("before", "created_at", "fields", "id", "is_archived", "searchable_at", "updated_at")

    def __init__(self, id: RowId, fields: dict[str, Any], at: datetime, searchable_at: float) -> None:
        self.id = id
        self.fields = fields
        self.created_at = at
        self.updated_at = at
        self.is_archived = False
        self.searchable_at = searchable_at
        self.before: dict[str, Any] | None = None

    def searchable_fields(self, now: float) -> dict[str, Any] | None:
        """The fields as the provider's search sees them at ``now``; None before the first indexing."""
        if now >= self.searchable_at:
            return self.fields
        return self.before


class Table(Generic[RowId]):
    """Rows of one native object. Fields given are kept, not copied: hand over a dict you made.

    ``indexes`` name fields looked up by equality in constant time (:meth:`find`); ``fold`` makes a value
    comparable (lower-case e-mails, say).
    """

    def __init__(self, store: EmulatorStore, name: str, make_id: Callable[[int], RowId]) -> None:
        self.store = store
        self.name = name
        self.rows: dict[RowId, Row[RowId]] = {}
        self._make_id = make_id
        self._next = 1
        self._indexes: dict[str, dict[Any, dict[RowId, None]]] = {}
        self._folds: dict[str, Callable[[Any], Any]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row[RowId]]:
        return iter(self.rows.values())

    def index(self, field: str, fold: Callable[[Any], Any] | None = None) -> None:
        """Declares a field for :meth:`find`; rows that stand already are indexed too."""
        self._indexes[field] = {}
        self._folds[field] = fold or _plain
        for row in self.rows.values():
            self._enter(row, (field,))

    def insert(self, fields: dict[str, Any], id: RowId | None = None) -> Row[RowId]:
        """Commits a new row; its id is the next one unless given."""
        if id is None:
            id = self._make_id(self._next)
            self._next += 1
        store = self.store
        now = store.clock.now()
        lag = store.search_lag_seconds
        row = Row(id, fields, now, now.timestamp() + lag if lag else 0.0)
        self.rows[id] = row
        if self._indexes:
            self._enter(row, self._indexes)
        store.written += 1
        return row

    def get(self, id: RowId, *, with_archived: bool = False) -> Row[RowId] | None:
        """The row, or None when it is gone (archived rows count as gone unless asked for)."""
        row = self.rows.get(id)
        if row is None or (row.is_archived and not with_archived):
            return None
        return row

    def update(self, id: RowId, fields: Mapping[str, Any]) -> Row[RowId]:
        """Commits changed fields; others stay. Raises KeyError for a missing row."""
        row = self.rows[id]
        store = self.store
        now = store.clock.now()
        if lag := store.search_lag_seconds:
            seen = row.searchable_fields(now.timestamp())
            row.before = dict(seen) if seen is not None else None
            row.searchable_at = now.timestamp() + lag
        touched = [name for name in self._indexes if name in fields]
        if touched:
            self._leave(row, touched)
        row.fields.update(fields)
        if touched:
            self._enter(row, touched)
        row.updated_at = now
        store.written += 1
        return row

    def archive(self, id: RowId, *, is_archived: bool = True) -> Row[RowId]:
        """Commits a soft delete (or its reversal)."""
        row = self.rows[id]
        row.is_archived = is_archived
        row.updated_at = self.store.clock.now()
        self.store.written += 1
        return row

    def remove(self, id: RowId) -> Row[RowId]:
        """Commits a hard delete: the row is gone."""
        row = self.rows.pop(id)
        self._leave(row, self._indexes)
        self.store.written += 1
        return row

    def find(self, field: str, value: Any, *, with_archived: bool = False) -> list[Row[RowId]]:
        """Rows whose indexed field equals the value, search lag not applied. Raises KeyError unindexed."""
        ids = self._indexes[field].get(self._folds[field](value), ())
        return [self.rows[id] for id in ids if with_archived or not self.rows[id].is_archived]

    def search(
        self, accepts: Callable[[dict[str, Any]], bool] | None = None, *, with_archived: bool = False
    ) -> list[Row[RowId]]:
        """Rows as the provider's search sees them: behind by the search lag, in insertion order."""
        now = self.store.clock.timestamp()
        found = []
        for row in self.rows.values():
            if row.is_archived and not with_archived:
                continue
            fields = row.fields if not row.searchable_at else row.searchable_fields(now)
            if fields is not None and (accepts is None or accepts(fields)):
                found.append(row)
        return found

    def clear(self) -> None:
        """Forgets all rows; ids start over."""
        self.rows.clear()
        self._next = 1
        for entries in self._indexes.values():
            entries.clear()

    def _enter(self, row: Row[RowId], names: Any) -> None:
        for name in names:
            value = row.fields.get(name)
            if value not in _NEVER_INDEXED:
                self._indexes[name].setdefault(self._folds[name](value), {})[row.id] = None

    def _leave(self, row: Row[RowId], names: Any) -> None:
        for name in names:
            value = row.fields.get(name)
            if value not in _NEVER_INDEXED:
                self._indexes[name].get(self._folds[name](value), {}).pop(row.id, None)


class EmulatorStore:
    """All tables of one emulator. ``written`` counts committed row changes, each record once.

    ``search_lag_seconds``: how long after a write the provider's search still shows the old state.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.search_lag_seconds = 0.0
        self.written = 0
        self.tables: dict[str, Table[Any]] = {}

    def numbered(self, name: str, *, first_id: int = 1) -> Table[int]:
        """The table of this name with integer ids, made on first use."""
        table = self.tables.get(name)
        if table is None:
            table = self.tables[name] = Table(self, name, lambda count: first_id + count - 1)
        return table

    def named(self, name: str, make_id: Callable[[int], str] = str) -> Table[str]:
        """The table of this name with text ids; ``make_id`` gets 1, 2, 3, …"""
        table = self.tables.get(name)
        if table is None:
            table = self.tables[name] = Table(self, name, make_id)
        return table

    def clear(self) -> None:
        """Forgets all rows, ids start over; tables and their indexes stay declared."""
        for table in self.tables.values():
            table.clear()
        self.written = 0


def _plain(value: Any) -> Any:
    return value
