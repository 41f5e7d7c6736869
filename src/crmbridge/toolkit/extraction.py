"""Reads values out of answers by JMESPath, with caps: the path is an operator's, the answer a stranger's.

Language: https://jmespath.org/specification.html (library jmespath 1.1). Unbounded, one expression of 150
characters doubles a value 26 times and then runs for seconds in ``to_string``; so a path is refused when it
is long, deep, calls a function that is not listed, or could copy its input more than :data:`MAX_COPIES` times,
and the functions that make texts are bounded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["PathError", "compile_path"]

MAX_EXPRESSION = 512
MAX_NODES = 60
MAX_DEPTH = 12
MAX_COPIES = 64
MAX_TEXT = 1_000_000
MAX_RESULT_NODES = 1_000_000
FUNCTIONS = frozenset(
    {"contains", "join", "keys", "length", "not_null", "starts_with", "to_number", "to_string", "values"}
)

_CHAINS = frozenset({"subexpression", "index_expression", "pipe", "projection", "value_projection"})
_SUMS = frozenset({"multi_select_list", "multi_select_dict", "function_expression"})


class PathError(ValueError):
    """A path that is refused, or that does not suit this answer. The message never shows the answer."""


@functools.lru_cache(maxsize=512)
def compile_path(expression: str) -> Callable[[Any], Any]:
    """A function from a JSON tree to the value at ``expression``; None where nothing is found.

    Both steps raise PathError. The result may share parts with the tree.
    """
    from jmespath import parser
    from jmespath.exceptions import JMESPathError

    if not expression.strip() or len(expression) > MAX_EXPRESSION:
        raise PathError(f"a path has 1 to {MAX_EXPRESSION} characters")
    try:
        parsed = parser.Parser().parse(expression)
        nodes, depth, copies = _measured(parsed.parsed)
    except PathError:
        raise
    except RecursionError:
        raise PathError("the path is nested too deep") from None
    except (JMESPathError, ValueError) as error:
        words = (str(error).splitlines() or [""])[0][:120]
        raise PathError(f"the path cannot be read: {words}") from None
    if nodes > MAX_NODES or depth > MAX_DEPTH:
        raise PathError(f"the path is too large: at most {MAX_NODES} parts and {MAX_DEPTH} levels")
    if copies > MAX_COPIES:
        raise PathError(f"the path could copy its input {copies} times; at most {MAX_COPIES} are allowed")
    if parsed.parsed["type"] == "field":
        # One part of the tree as it is: nothing is copied, nothing can fail.
        name = parsed.parsed["value"]
        return lambda tree: tree.get(name) if isinstance(tree, dict) else None
    options = _options()

    def extract(tree: Any) -> Any:
        try:
            found = parsed.search(tree, options=options)
        except PathError:
            raise
        except (JMESPathError, RecursionError, TypeError, ValueError, OverflowError) as error:
            raise PathError(f"the path does not suit the answer ({type(error).__name__})") from None
        _check_size(found)
        return found

    return extract


def _measured(node: dict[str, Any]) -> tuple[int, int, int]:
    """Number of nodes, depth, and the most copies of the input that the result can hold."""
    kind = node["type"]
    if kind == "function_expression" and node["value"] not in FUNCTIONS:
        raise PathError(
            f"the function {str(node['value'])[:40]!r} is not allowed; there are: {', '.join(sorted(FUNCTIONS))}"
        )
    if kind == "expref":
        raise PathError("expressions passed to functions (&) are not allowed")
    parts = [_measured(child) for child in node["children"] if isinstance(child, dict)]
    nodes = 1 + sum(part[0] for part in parts)
    depth = 1 + max((part[1] for part in parts), default=0)
    copies = 1
    if kind in _CHAINS:
        for part in parts:
            copies *= part[2]
    elif kind in _SUMS:
        copies = max(sum(part[2] for part in parts), 1)
    elif kind == "filter_projection":
        copies = parts[0][2] * parts[1][2] * parts[2][2]
    elif parts:
        copies = max(part[2] for part in parts)
    return nodes, depth, copies


def _check_size(value: Any) -> None:
    """Counts the result, shared parts as often as they appear, without recursion."""
    left = MAX_RESULT_NODES
    waiting = [value]
    while waiting:
        item = waiting.pop()
        left -= 1
        if isinstance(item, dict):
            left -= len(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            left -= len(item)
            waiting.extend(item)
        if left < 0:
            raise PathError(f"the path finds more than {MAX_RESULT_NODES} values")


def _text_size(value: Any, limit: int) -> int:
    """About the length of ``value`` as JSON, shared parts counted each time; stops above ``limit``."""
    size = 0
    waiting = [value]
    while waiting and size <= limit:
        item = waiting.pop()
        size += 1 + (len(item) if isinstance(item, str) else 4)
        if isinstance(item, dict):
            size += sum(len(key) + 4 for key in item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return size


@functools.cache
def _options() -> Any:
    """JMESPath's own functions, the two that make texts bounded."""
    from jmespath import functions
    from jmespath.visitor import Options

    class Bounded(functions.Functions):  # type: ignore[misc]
        @functions.signature({"types": []})  # type: ignore[untyped-decorator]
        def _func_to_string(self, arg: Any) -> Any:
            if _text_size(arg, MAX_TEXT) > MAX_TEXT:
                raise PathError(f"to_string would make more than {MAX_TEXT} characters")
            return super()._func_to_string(arg)

        @functions.signature({"types": ["string"]}, {"types": ["array-string"]})  # type: ignore[untyped-decorator]
        def _func_join(self, separator: str, array: list[str]) -> str:
            if sum(map(len, array)) + len(separator) * len(array) > MAX_TEXT:
                raise PathError(f"join would make more than {MAX_TEXT} characters")
            return separator.join(array)

        @functions.signature({"types": []})  # type: ignore[untyped-decorator]
        def _func_to_number(self, arg: Any) -> Any:
            if isinstance(arg, str) and len(arg) > 64:
                return None
            return super()._func_to_number(arg)

    return Options(custom_functions=Bounded())
