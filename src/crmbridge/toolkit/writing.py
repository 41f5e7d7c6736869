"""What writers share whose provider takes batches, answers each row, and keeps our mark in a field."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache

from crmbridge.core.errors import Conflict, CrmError, UnexpectedResponse, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Write
from crmbridge.toolkit.batches import Results, parts
from crmbridge.toolkit.exchange import HttpDriver

__all__ = ["BatchWriter"]


_MATCHES_LINES = re.compile(r"[.^\n]|\\[^d]")
"""What lets a pattern match a line break, or may do so."""


@lru_cache(maxsize=64)
def _id_patterns(text: str) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    """For one id, and for many with line breaks between (five times as quick), if an id can hold none."""
    lines = None if _MATCHES_LINES.search(text) else re.compile(rf"(?:{text})(?:\n(?:{text}))*")
    return re.compile(text), lines


class BatchWriter:
    """Writes of one access; places are positions in the caller's list."""

    def __init__(self, driver: HttpDriver) -> None:
        self.driver = driver
        self.mark = driver.mark

    def are_ids(self, texts: Sequence[str]) -> bool:
        """Whether each of them has the form of this provider's ids."""
        is_id, are_lines = _id_patterns(self.driver.manifest.strict_ids)
        if are_lines is None:
            return all(map(is_id.fullmatch, texts))
        lines = "\n".join(texts)
        return lines.count("\n") == len(texts) - 1 and are_lines.fullmatch(lines) is not None

    def check_parts(self, write: Write, kind: str) -> None:
        """A write of one record of its own ``kind`` (such as "module"), with valid ids in its links.

        Raises ValidationError.
        """
        if write.related:
            names = ", ".join(part.native_object for part in write.related)
            raise ValidationError(
                f"Fields of a {write.object.value} are mapped to {names}; here every slot stands on its own {kind}.",
                provider=self.driver.manifest.slug,
            )
        for name, remote_id in write.links.items():
            self.driver.check_id(Object(name), remote_id)

    def odd(self, what: str, operation: Operation) -> UnexpectedResponse:
        """The error for an answer to a write that is of a wrong shape."""
        return self.driver.unexpected(what, operation, is_write=True)

    def too_many(self, found: Sequence[str]) -> Conflict:
        """The error for an upsert whose match fits several records."""
        return self.driver.ambiguous(found[0], str(len(found)))

    async def made_before(
        self,
        writes: Mapping[int, Write],
        results: Results,
        ids_by_mark: Callable[[Sequence[str]], Awaitable[Mapping[str, str]]],
        size: int,
    ) -> dict[int, str]:
        """The records of creates that were refused because of their own mark: they had been done before.

        ``ids_by_mark`` looks for at most ``size`` marks. Whose a record is may not be told: it stays a conflict.
        """
        clashes = [place for place, result in results.items() if isinstance(result.error, Conflict)]
        found: dict[int, str] = {}
        for places in parts(clashes, size):
            marks = {place: self.mark(writes[place]) for place in places}
            try:
                ids = await ids_by_mark(list(marks.values()))
            except CrmError:
                continue
            found |= {place: ids[mark] for place, mark in marks.items() if mark in ids}
        return found
