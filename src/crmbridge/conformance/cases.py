"""How contract tests become cases: one per object or operation, with strict gaps. Knows no driver."""

from __future__ import annotations

import functools
import inspect
import sys
import unittest
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn, TypeVar, cast

import msgspec

from crmbridge.core.manifest import Manifest
from crmbridge.core.operations import Operation

__all__ = [
    "Case",
    "ContractBroken",
    "NotApplicable",
    "cases_of",
    "expect",
    "per_object",
    "per_operation",
    "per_write",
]

TestT = TypeVar("TestT", bound=Callable[..., Any])


class ContractBroken(AssertionError):
    """A promise of the contract does not hold; the text says which and what was seen."""


class NotApplicable(unittest.SkipTest):
    """The test has nothing to try here; pytest and the own runner show the reason."""


class Case(msgspec.Struct, frozen=True):
    """One runnable test. ``run`` takes the contract's instance."""

    name: str
    topic: str
    run: Callable[..., Awaitable[None]]
    gap: str = ""
    raw: Any = None


def expect(condition: object, message: str) -> None:
    """Raises ContractBroken with ``message`` unless the condition holds; unlike assert, never optimised away."""
    if not condition:
        raise ContractBroken(message)


def per_object(*operations: Operation) -> Callable[[TestT], TestT]:
    """Runs ``test(self, obj)`` once for each object that declares all these operations usable."""

    def mark(test: TestT) -> TestT:
        cast(Any, test).__needs__ = operations
        return test

    return mark


def per_operation(test: TestT) -> TestT:
    """Runs ``test(self, obj, operation)`` once for each operation declared usable."""
    cast(Any, test).__each_operation__ = tuple(Operation)
    return test


def per_write(test: TestT) -> TestT:
    """Runs ``test(self, obj, operation)`` once for each writing operation declared usable."""
    cast(Any, test).__each_operation__ = tuple(operation for operation in Operation if operation.is_write)
    return test


def cases_of(contract: type[Any], manifest: Manifest, gaps: dict[str, str]) -> list[Case]:
    """All cases of a contract class, topic by topic, in the order they are written."""
    templates: dict[str, Callable[..., Any]] = {}
    for base in reversed(contract.__mro__):
        for name, member in vars(base).items():
            if name.startswith("test_") and inspect.isfunction(member) and not hasattr(member, "__case__"):
                templates[name] = member
    cases = []
    for name, test in templates.items():
        topic = test.__module__.rsplit(".", 1)[-1] if "conformance." in test.__module__ else "own"
        for full_name, arguments in _expand(name, test, manifest):
            cases.append(Case(full_name, topic, _bind(test, arguments), gaps.get(full_name, ""), test))
    return cases


def attach(contract: type[Any], cases: Iterable[Case]) -> None:
    """Gives the class one method per case for pytest, and hides the templates they were made from."""
    for case in cases:
        template = case.raw.__name__
        if template != case.name:
            setattr(contract, template, None)
        setattr(contract, case.name, _method(case))


def _expand(
    name: str, test: Callable[..., Any], manifest: Manifest
) -> Iterable[tuple[str, tuple[Any, ...] | None]]:
    needs: tuple[Operation, ...] | None = getattr(test, "__needs__", None)
    if needs is not None:
        fitting = [
            obj for obj in manifest.objects if all(manifest.supports(obj, each).is_usable for each in needs)
        ]
        return [(f"{name}__{obj.value}", (obj,)) for obj in fitting] or [(name, None)]
    operations: tuple[Operation, ...] = getattr(test, "__each_operation__", ())
    if operations:
        return [
            (f"{name}__{obj.value}_{operation.value}", (obj, operation))
            for obj, spec in manifest.objects.items()
            for operation, support in spec.operations.items()
            if support.is_usable and operation in operations
        ] or [(name, None)]
    return [(name, ())]


def _bind(test: Callable[..., Any], arguments: tuple[Any, ...] | None) -> Callable[..., Awaitable[None]]:
    async def run(self: Any, **fixtures: Any) -> None:
        if arguments is None:
            raise NotApplicable("no object of this driver declares what this test tries")
        try:
            answer = test(self, *arguments, **fixtures)
            if inspect.isawaitable(answer):
                await answer
        finally:
            await self.clean()

    return run


def _method(case: Case) -> Callable[..., Awaitable[None]]:
    async def method(self: Any, **fixtures: Any) -> None:
        try:
            await case.run(self, **fixtures)
        except NotApplicable:
            raise
        except Exception as error:
            if case.gap:
                _expect_failure(case.gap, error)
            raise
        if case.gap:
            raise ContractBroken(f"the gap {case.name!r} passes now: delete it from gaps ({case.gap})")

    if not hasattr(case.raw, "__needs__") and not hasattr(case.raw, "__each_operation__"):
        functools.update_wrapper(method, case.raw)
    method.__name__ = case.name
    method.__qualname__ = case.name
    method.__doc__ = case.raw.__doc__
    cast(Any, method).__case__ = case
    return method


def _expect_failure(reason: str, error: Exception) -> NoReturn:
    pytest = sys.modules.get("pytest")
    if pytest is not None:
        pytest.xfail(reason)
    raise error
