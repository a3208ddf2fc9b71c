"""The house's rules, held by machines: who may import whom, who commits, how long a file may get."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("api", "cache", "commands", "database", "resources", "schemas", "security", "services")
MODULES = (
    *("app", "column_types", "config", "create_admin", "enums", "errors", "extensions", "gc_freeze"),
    *("metrics_directory", "models", "run", "server"),
)
OURS = {*PACKAGES, *MODULES, "tests", "migrations", "data"}

# what a layer may import of ours; dependencies point down
BASE = {"column_types", "config", "enums", "errors"}
BELOW = BASE | {"cache", "database", "extensions", "models", "security"}
ALLOWED = {
    "app": OURS - {"tests", "app", "create_admin"},
    "server": {"config", "gc_freeze", "metrics_directory"},
    "run": {"app", "config", "create_admin", "server"},
    "gc_freeze": set(),
    "metrics_directory": set(),
    "create_admin": BELOW | {"app", "schemas", "services", "commands"},
    "commands": BELOW | {"schemas", "services", "commands"},
    "resources": BELOW | {"api", "schemas", "services", "resources"},
    "api": BELOW | {"schemas", "services", "api"},
    "schemas": BASE | {"models", "security.sanitize", "schemas"},
    "services": BELOW | {"services"},
    "security": BELOW,
    "extensions": {"database", "models"},
    "cache": BASE | {"cache"},
    "database": {"config", "database", "errors"},
    "models": {"column_types", "enums"},
    "column_types": set(),
    "enums": set(),
    "errors": set(),
    "config": set(),
}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "dao", "repositories", "interfaces"}
MAY_COMMIT = {"api/request_cycle.py", "create_admin.py"}


def sources() -> list[Path]:
    """Every source file of the server."""
    return [ROOT / f"{name}.py" for name in MODULES] + [
        path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
    ]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """The modules a file imports, with their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def layer(path: Path) -> str:
    """Which layer a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(), ids=name)
def test_dependencies_point_down(path: Path) -> None:
    allowed = ALLOWED[layer(path)]

    wrong = [
        f"line {line}: {module}"
        for module, line in imports(path)
        if module.split(".")[0] in OURS
        and module.split(".")[0] not in allowed
        and not any(module.startswith(one) or one.startswith(module) for one in allowed if "." in one)
    ]

    assert not wrong, f"{name(path)} imports what lies above it: {wrong}"


@pytest.mark.parametrize("package", ["services", "schemas"])
def test_rules_know_nothing_of_http(package: str) -> None:
    found = [
        f"{name(path)}:{line}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for module, line in imports(path)
        if module.split(".")[0].startswith(("flask", "werkzeug"))
    ]

    assert found == []


def test_only_the_framework_and_the_commands_commit() -> None:
    found = [
        f"{name(path)}:{node.lineno}"
        for path in sources()
        if name(path) not in MAY_COMMIT and layer(path) not in ("commands", "database")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit"
    ]

    assert found == []


def test_the_clock_is_read_in_one_place() -> None:
    found = [
        f"{name(path)}:{node.lineno}"
        for path in sources()
        if name(path) != "services/clock.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("now", "utcnow", "today")
        and isinstance(node.value, ast.Name)
        and node.value.id in ("datetime", "date")
    ]

    assert found == []


def test_no_source_but_the_models_is_over_500_lines() -> None:
    long = {
        name(path): lines
        for path in sources()
        if path.name != "models.py" and (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }

    assert long == {}


def test_no_function_is_over_60_lines() -> None:
    long = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 60
    ]

    assert long == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name(path) for path in sources() if path.stem in FORBIDDEN_NAMES] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name(path)
        for path in sources()
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert silent == []


def test_every_public_function_of_the_rules_says_what_it_does() -> None:
    silent = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path in sources()
        if layer(path) in ("api", "commands", "resources", "schemas", "security", "services")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]

    assert silent == []


# Files outside database/ that name a driver or a dialect. This list may only shrink.
KNOW_A_DRIVER = {"config.py"}  # the URL schemes of the setting DATABASE_URI


def test_only_the_database_folder_knows_drivers_and_dialects() -> None:
    found = {
        name(path)
        for path in sources()
        if layer(path) not in ("commands", "database")
        and re.search(r"psycopg2|\.dialect\b|prefix_with", path.read_text(encoding="utf-8"))
    }

    assert found == KNOW_A_DRIVER


def test_session_info_has_no_string_keys() -> None:
    found = [
        f"{name(path)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"""\binfo(\[|\.(get|pop|setdefault)\()["']""", line)
    ]

    assert found == []


def test_no_source_uses_the_global_session_state_of_flask_below_the_api() -> None:
    found = [
        f"{name(path)}:{line}"
        for path in sources()
        if layer(path) in ("cache", "database", "schemas", "services")
        for module, line in imports(path)
        if module.split(".")[0] == "flask"
    ]

    assert found == []
