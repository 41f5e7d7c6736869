"""Statements that stand in files of their own, beside the module that runs them."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["read_sql"]


def read_sql(package: str | None, name: str) -> str:
    """The text of one ``.sql`` file of a package (its ``__package__``)."""
    return files(package or "").joinpath(name).read_text(encoding="utf-8")
