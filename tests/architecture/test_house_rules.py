"""Rules of the house that no linter knows: names, sizes, who may open what, where SQL stands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from crmbridge.drivers import DRIVERS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "crmbridge"
FORBIDDEN_NAMES = {
    "integration", "account", "backend", "plugin", "sync_job", "handler", "util", "utils", "helper", "helpers",
    "common", "misc", "manager", "data", "info",
}  # fmt: skip
# The contract plants canary secrets and searches everything for them, so it knows their texts.
OPENS_SECRETS = {
    "services/vault",
    "toolkit/auth.py",
    "toolkit/signatures.py",
    "core/secret.py",
    "conformance/",
}


def _modules(folder: Path = SOURCE) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def _relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _texts_and_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def test_provider_names_when_outside_their_folder_then_nowhere() -> None:
    # custom_webhook is named by the refusal of a reserved slug: it is the documented way out.
    allowed = {("core/driver.py", "custom_webhook")}
    found = []
    for path in _modules():
        inside = path.relative_to(SOURCE).parts
        if inside[0] == "drivers":
            own = inside[1] if len(inside) > 2 else ""
            if not own:
                continue
            names = [slug for slug in sorted(DRIVERS) if slug != own]
        else:
            names = sorted(DRIVERS)
        pattern = re.compile(r"(?<![a-z])(" + "|".join(map(re.escape, names)) + r")(?![a-z])", re.IGNORECASE)
        for line, text in _texts_and_names(_tree(path)):
            for match in pattern.finditer(text):
                name = match.group(1).lower()
                # A driver may point to the two generic ones as the way out.
                is_way_out = inside[0] == "drivers" and name in ("custom_webhook", "rest_api")
                if not is_way_out and (_relative(path), name) not in allowed:
                    found.append(f"{_relative(path)}:{line} {name}")
    assert found == [], "a provider's name stands outside its folder:\n" + "\n".join(found)


def test_module_sizes_when_counted_then_within_the_house_limits() -> None:
    over = []
    for path in [
        *_modules(),
        *_modules(ROOT / "tests"),
        *_modules(ROOT / "tools"),
        *_modules(ROOT / "benchmarks"),
    ]:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        limit = 400 if path.name in ("driver.py", "emulator.py") and "drivers" in path.parts else 500
        if lines > limit:
            over.append(f"{path.relative_to(ROOT)} has {lines} lines (at most {limit})")
    assert over == [], "\n".join(over)


def test_names_when_modules_and_classes_then_none_of_the_unused_words() -> None:
    bad = []
    for path in _modules():
        if set(path.relative_to(SOURCE).with_suffix("").parts) & FORBIDDEN_NAMES:
            bad.append(_relative(path))
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef):
                words = {word.lower() for word in re.findall(r"[A-Z][a-z]*", node.name)}
                if words & FORBIDDEN_NAMES:
                    bad.append(f"{_relative(path)}: class {node.name}")
    assert bad == [], "\n".join(bad)


def test_secrets_when_opened_then_only_by_vault_auth_and_signatures() -> None:
    bad = []
    for path in _modules():
        name = _relative(path)
        if any(name.startswith(allowed) for allowed in OPENS_SECRETS) or "/test_" in name:
            continue
        for node in ast.walk(_tree(path)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "open"
                and not node.args
                and not node.keywords
            ):
                bad.append(f"{name}:{node.lineno}")
    assert bad == [], "a Secret may be opened here: " + ", ".join(bad)


def test_several_tenants_when_set_at_once_then_only_by_the_accept_flusher() -> None:
    callers = set()
    for path in _modules():
        for node in ast.walk(_tree(path)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("tenants", "at_once")
                and "db" in ast.unparse(node.func.value)
            ):
                callers.add(_relative(path))
    assert callers <= {"services/delivery/intake/flusher.py"}, sorted(callers)


@pytest.mark.parametrize("verb", ["select ", "insert into ", "update ", "delete from "])
def test_sql_when_written_then_only_in_stores_and_the_database_room(verb: str) -> None:
    shape = re.compile(
        rf"(?:^|\s){verb}[a-z_.]+\s+(?:set|from|where|values|\()|^\s*{verb}", re.IGNORECASE | re.MULTILINE
    )
    keywords = re.compile(r"\b(from|set|values|where|into)\b", re.IGNORECASE)
    bad = []
    for path in _modules():
        name = _relative(path)
        if path.name == "store.py" or name.startswith("db/") or "/test_" in name:
            continue
        for line, text in _texts_and_names(_tree(path)):
            if text.strip().lower() == "select 1" or len(text) < 15:
                continue
            if shape.search(text) and keywords.search(text) and "\n" in text:
                bad.append(f"{name}:{line}")
    assert bad == [], ", ".join(bad)


def test_outbound_sockets_when_opened_then_only_by_egress() -> None:
    bad = []
    clients = {
        "ClientSession",
        "urlopen",
        "create_connection",
        "open_connection",
        "HTTPSConnection",
        "AsyncClient",
    }
    for path in _modules():
        name = _relative(path)
        if name == "toolkit/egress.py" or "/test_" in name:
            continue
        for node in ast.walk(_tree(path)):
            called = node.func if isinstance(node, ast.Call) else None
            word = getattr(called, "attr", getattr(called, "id", ""))
            if called is not None and word in clients:
                bad.append(f"{name}:{called.lineno} {word}")
    assert bad == [], ", ".join(bad)


def test_secrets_when_declared_then_typed_as_secret() -> None:
    """Fields that sound secret must have the type Secret, or hold something sealed, hashed or a name of a setting."""
    suspicious = re.compile(
        r"^(password|secret|api_key|access_token|refresh_token|client_secret|master_key)$"
    )
    bad = []
    for path in _modules(SOURCE / "services") + _modules(SOURCE / "toolkit") + [SOURCE / "settings.py"]:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                kind = ast.unparse(node.annotation)
                if suspicious.match(node.target.id) and "Secret" not in kind:
                    bad.append(f"{_relative(path)}:{node.lineno} {node.target.id}: {kind}")
    assert bad == [], "\n".join(bad)
