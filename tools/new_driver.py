"""Scaffolds a driver: its folder and its registry line here, or (``--outside DIR``) a package of its own.

What it writes is valid, clean and red: each failing test says what to do next (docs/tutorial/first-driver.md).
"""

from __future__ import annotations

import argparse
import ast
import keyword
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template

ROOT = Path(__file__).parents[1]
TEMPLATES = Path(__file__).parent / "templates"
FILES = {
    "__init__.py": "__init__.py.txt",
    "driver.py": "driver.py.txt",
    "emulator.py": "emulator.py.txt",
    "fields.toml": "fields.toml.txt",
    "NOTES.md": "NOTES.md.txt",
    "fixtures/README.md": "keep.txt",
    "test_{slug}.py": "test.py.txt",
}
LONGEST = 30
# Words of the house (docs/glossary.md): as a provider's name they would say two things, or nothing.
RESERVED = frozenset(
    (
        *(
            "account",
            "agent",
            "backend",
            "common",
            "data",
            "handler",
            "helper",
            "info",
            "integration",
            "manager",
        ),
        *("misc", "plugin", "sync", "util", "utils"),
        *("activity", "appointment", "case", "customer", "deal", "lead", "note"),
        *("clinic", "general", "real_estate", "restaurant", "salon"),
        *(
            "audit",
            "connection",
            "contract",
            "credential",
            "driver",
            "drivers",
            "emulation",
            "emulator",
            "entry",
        ),
        *(
            "manifest",
            "mapping",
            "object",
            "operator",
            "provider",
            "record",
            "slot",
            "target",
            "tenant",
            "test",
        ),
        *("tests", "toolkit", "vertical", "write"),
    )
)
_REGISTRY = "src/crmbridge/drivers/__init__.py"


class Refused(Exception):
    """The scaffold cannot be made; the text says why and what to do."""


def check_name(slug: str, root: Path, *, is_outside: bool = False) -> None:
    """Raises Refused for a name that cannot be a slug, or that the house rules would trip over."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", slug) or len(slug) > LONGEST:
        raise Refused(
            f"{slug!r} cannot be a slug: lower-case letters, digits and single underscores, a letter first, at most "
            f"{LONGEST} characters (pipedrive, close_crm)."
        )
    if keyword.iskeyword(slug) or keyword.issoftkeyword(slug):
        raise Refused(f"{slug!r} is a word of Python; add the maker or the trade to it ({slug}_crm).")
    if slug in RESERVED:
        raise Refused(
            f"{slug!r} is a word of crmbridge itself; add the maker or the trade to it ({slug}_crm)."
        )
    registry = (root / _REGISTRY).read_text(encoding="utf-8")
    if f'"{slug}": ' in registry:
        raise Refused(f"There is a driver {slug!r} already: see src/crmbridge/drivers/{slug}.")
    if is_outside:
        return
    if (root / "src/crmbridge/drivers" / slug).exists():
        raise Refused(f"src/crmbridge/drivers/{slug} exists already; remove it or choose another name.")
    if taken := next(_uses(slug, root / "src" / "crmbridge"), ""):
        raise Refused(
            f"{slug!r} is used as a word in the code ({taken}), and no provider's name may stand outside its folder; "
            f"add the maker or the trade to it ({slug}_crm)."
        )


def _uses(slug: str, source: Path) -> Iterator[str]:
    """Places where the slug stands as a name or in a text that is no docstring, which the house rules would find."""
    shape = re.compile(rf"(?<![a-z]){slug}(?![a-z])", re.IGNORECASE)
    for path in sorted(source.rglob("*.py")):
        if path == source / "drivers" / "__init__.py" or not shape.search(path.read_text(encoding="utf-8")):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            names = [getattr(node, part, "") for part in ("id", "attr", "name", "module", "value")]
            texts = [text for text in names if isinstance(text, str) and id(node) not in prose]
            if any(shape.search(text) for text in texts):
                yield f"{path.relative_to(source.parents[1])}:{getattr(node, 'lineno', 1)}"


def plan_files(slug: str, display: str, *, outside: Path | None, root: Path) -> dict[Path, str]:
    """Path → text of every file of the scaffold; the registry comes with its new line."""
    klass = "".join(part.capitalize() for part in slug.split("_"))
    package = f"crmbridge_{slug}" if outside else f"crmbridge.drivers.{slug}"
    words = {
        "slug": slug,
        "dashed": slug.replace("_", "-"),
        "display": display,
        "klass": klass,
        "package": package,
        "version": _version(root),
        "gap": "\n" if outside else "",  # another package's imports stand apart
        "noqa": "" if outside else "  # noqa: S106 - the name of a setting",
    }
    folder = outside / "src" / package if outside else root / "src/crmbridge/drivers" / slug
    made = {
        folder / name.format(slug=slug): _filled(TEMPLATES / "driver" / template, words)
        for name, template in FILES.items()
    }
    if outside:
        for template in sorted((TEMPLATES / "outside").iterdir()):
            made[outside / template.stem] = _filled(template, words)
    else:
        made[root / _REGISTRY] = with_line(
            (root / _REGISTRY).read_text(encoding="utf-8"), slug, f"{package}.driver:{klass}"
        )
    return made


def with_line(registry: str, slug: str, value: str) -> str:
    """The registry's text with one more line, in its alphabetical place."""
    head, opening, rest = registry.partition("DRIVERS: dict[str, str] = {\n")
    table, closing, tail = rest.partition("}\n")
    if not (opening and closing):
        raise Refused(
            f"{_REGISTRY} has no table DRIVERS any more; write the line yourself: {slug!r}: {value!r}"
        )
    lines = [*table.splitlines(keepends=True), f'    "{slug}": "{value}",\n']
    return head + opening + "".join(sorted(lines)) + closing + tail


def _version(root: Path) -> str:
    found = re.search(
        r'__version__ = "(.+?)"', (root / "src/crmbridge/_version.py").read_text(encoding="utf-8")
    )
    return found[1] if found else "0"


def _filled(template: Path, words: dict[str, str]) -> str:
    return Template(template.read_text(encoding="utf-8")).substitute(words)


def write(files: dict[Path, str], *, may_change: Path) -> None:
    """Writes them all, or none: an existing file other than ``may_change`` is refused before the first write."""
    if there := [str(path) for path in files if path.exists() and path != may_change]:
        raise Refused(f"These files exist already: {', '.join(there)}.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def told(slug: str, files: dict[Path, str], *, outside: Path | None, root: Path, is_dry: bool) -> str:
    """What was done, what comes next, and how to undo it."""
    where = root / "src/crmbridge/drivers" / slug
    lines = ["would write:" if is_dry else "wrote:"]
    lines += [f"  {_short(path, root)}" for path in files]
    if is_dry:
        return "\n".join([*lines, "nothing was written (--dry-run)"])
    if outside:
        lines += [
            f"next: cd {_short(outside, root)} && pip install -e . pytest pytest-asyncio && pytest",
            f"undo: rm -r {_short(outside, root)}",
        ]
    else:
        lines += [
            f"next: .venv/bin/pytest -q {_short(where, root)}   (red: each failing test says what to do)",
            "      docs/tutorial/first-driver.md goes through it; make docs writes its page",
            f'undo: rm -r {_short(where, root)}, and take the line "{slug}" out of {_REGISTRY}',
        ]
    return "\n".join(lines)


def _short(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 when written, 2 when refused."""
    parser = argparse.ArgumentParser(prog="new_driver", description=__doc__)
    parser.add_argument("name", help="the slug: lower-case, as the vendor writes the product (pipedrive)")
    parser.add_argument("--display", default="", help="the name for people; default: the slug with capitals")
    parser.add_argument("--outside", type=Path, metavar="DIR", help="a package of its own in this new folder")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be written, write nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    slug, root = options.name.strip(), options.root.resolve()
    outside = options.outside.resolve() if options.outside else None
    display = options.display.strip() or " ".join(part.capitalize() for part in slug.split("_"))
    try:
        check_name(slug, root, is_outside=outside is not None)
        if not re.fullmatch(r"[\w .&'/+-]{1,60}", display) or display != display.strip('"\\'):
            raise Refused(
                f"{display!r} cannot be a display name: letters, digits, blanks and . & ' / + - only."
            )
        if outside is not None and outside.is_relative_to(root / "src"):
            raise Refused(f"{outside} lies inside src; a package of its own needs a folder of its own.")
        files = plan_files(slug, display, outside=outside, root=root)
        if not options.dry_run:
            write(files, may_change=root / _REGISTRY)
    except Refused as refusal:
        print(f"new_driver: {refusal}", file=sys.stderr)
        return 2
    print(told(slug, files, outside=outside, root=root, is_dry=options.dry_run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
