"""The architecture: imports between layers, the commit point, sizes of files, docstrings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.uncounted  # reads files, and runs nothing of the server

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("api", "cache", "commands", "database", "resources", "schemas", "security", "services")
MODULES = (
    *(
        "app",
        "column_types",
        "config",
        "config_keys",
        "config_messages",
        "create_admin",
        "enums",
        "errors",
        "extensions",
        "lazy_imports",
    ),
    *("gc_freeze", "metrics_directory", "models", "run", "server", "worker_process"),
)
PROJECT = {*PACKAGES, *MODULES, "tests", "migrations", "data"}

# The modules of the project that a layer may import. Dependencies point down.
LOWEST = {"column_types", "config", "config_keys", "config_messages", "enums", "errors", "lazy_imports"}
LOWER = LOWEST | {"cache", "database", "extensions", "models", "security"}
ALLOWED = {
    "app": PROJECT - {"tests", "app", "create_admin"},
    "server": {"api.logging", "config", "gc_freeze", "metrics_directory", "worker_process"},
    "worker_process": set(),
    "run": {"app", "config", "create_admin", "server"},
    "gc_freeze": set(),
    "metrics_directory": set(),
    "create_admin": LOWER | {"app", "schemas", "services", "commands"},
    "commands": LOWER | {"schemas", "services", "commands"},
    "resources": LOWER | {"api", "schemas", "services", "resources"},
    "api": LOWER | {"schemas", "services", "api"},
    "schemas": LOWEST | {"models", "security.sanitize", "schemas"},
    "services": LOWER | {"services"},
    "security": LOWER,
    "extensions": {"database", "models"},
    "cache": LOWEST | {"cache"},
    "database": {"config", "database", "errors"},
    "models": {"column_types", "enums"},
    "column_types": set(),
    "enums": set(),
    "errors": set(),
    "lazy_imports": set(),
    "config": {"config_keys", "config_messages"},
    "config_keys": set(),
    "config_messages": set(),
}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "dao", "repositories", "interfaces"}
MAY_COMMIT = {"api/request_cycle.py", "create_admin.py", "services/jobs/transactions.py"}


def sources() -> list[Path]:
    """Return the source files of the server."""
    return [ROOT / f"{name}.py" for name in MODULES] + [
        path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
    ]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the modules that a file imports, with their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def layer(path: Path) -> str:
    """Return the layer of a file."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(), ids=name)
def test_dependencies_point_down(path: Path) -> None:
    allowed = ALLOWED[layer(path)]

    wrong = [
        f"line {line}: {module}"
        for module, line in imports(path)
        if module.split(".")[0] in PROJECT
        and module.split(".")[0] not in allowed
        and not any(module.startswith(part) or part.startswith(module) for part in allowed if "." in part)
    ]

    assert not wrong, f"{name(path)} imports a higher layer: {wrong}"


@pytest.mark.parametrize("package", ["services", "schemas"])
def test_services_and_schemas_do_not_import_flask(package: str) -> None:
    violations = [
        f"{name(path)}:{line}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for module, line in imports(path)
        if module.split(".")[0].startswith(("flask", "werkzeug"))
    ]

    assert violations == []


def test_only_the_framework_and_the_commands_commit() -> None:
    violations = [
        f"{name(path)}:{node.lineno}"
        for path in sources()
        if name(path) not in MAY_COMMIT and layer(path) not in ("commands", "database")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit"
    ]

    assert violations == []


def test_the_clock_is_read_in_one_place() -> None:
    violations = [
        f"{name(path)}:{node.lineno}"
        for path in sources()
        if name(path) != "services/clock.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("now", "utcnow", "today")
        and isinstance(node.value, ast.Name)
        and node.value.id in ("datetime", "date")
    ]

    assert violations == []


def test_no_source_except_the_models_has_over_500_lines() -> None:
    long = {
        name(path): lines
        for path in sources()
        if path.name != "models.py" and (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }

    assert long == {}


def test_no_function_has_over_60_lines() -> None:
    long = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 60
    ]

    assert long == []


def test_no_module_has_a_vague_name() -> None:
    assert [name(path) for path in sources() if path.stem in FORBIDDEN_NAMES] == []


def test_every_module_has_a_docstring() -> None:
    undocumented = [
        name(path)
        for path in sources()
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert undocumented == []


def test_every_public_function_has_a_docstring() -> None:
    undocumented = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path in sources()
        if layer(path) in ("api", "commands", "resources", "schemas", "security", "services")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]

    assert undocumented == []


# Files outside database/ that name a driver or a dialect. This list may only shrink.
NAMES_A_DRIVER = {"config.py"}  # URL schemes of the setting DATABASE_URI


def test_only_the_database_folder_names_drivers_and_dialects() -> None:
    violations = {
        name(path)
        for path in sources()
        if layer(path) not in ("commands", "database")
        and re.search(r"psycopg2|\.dialect\b|prefix_with", path.read_text(encoding="utf-8"))
    }

    assert violations == NAMES_A_DRIVER


def test_session_info_has_no_string_keys() -> None:
    violations = [
        f"{name(path)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"""\binfo(\[|\.(get|pop|setdefault)\()["']""", line)
    ]

    assert violations == []


def test_no_source_uses_the_global_session_state_of_flask_below_the_api() -> None:
    violations = [
        f"{name(path)}:{line}"
        for path in sources()
        if layer(path) in ("cache", "database", "schemas", "services")
        for module, line in imports(path)
        if module.split(".")[0] == "flask"
    ]

    assert violations == []
