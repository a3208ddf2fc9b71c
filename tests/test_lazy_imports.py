"""Libraries that a server process imports with their first use."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from lazy_imports import LazyModule
from tests.test_architecture import ROOT, sources


def test_a_server_process_imports_no_library_that_few_requests_need() -> None:
    declared = {
        name
        for path in sources()
        for name in re.findall(r'LazyModule\("([\w.]+)"\)', path.read_text(encoding="utf-8"))
    }
    command = [sys.executable, "-c", f"import sys, app; print(sorted({declared!r} & sys.modules.keys()))"]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert len(declared) > 5
    assert result.stdout.strip() == "[]"


def test_an_attribute_of_a_lazy_module_is_that_of_the_module() -> None:
    assert LazyModule("fractions").Fraction is Fraction


class SlowLoader(SourceFileLoader):
    """A loader that takes time before Python knows the module, as a busy host does."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        time.sleep(0.2)
        return super().create_module(spec)


def test_two_threads_import_a_package_and_its_module_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "__init__.py").write_text("from slow_package import part\n")
    (tmp_path / "part.py").write_text("NUMBER = 7\n")
    loader = SlowLoader("slow_package", str(tmp_path / "__init__.py"))
    spec = spec_from_file_location("slow_package", loader=loader, submodule_search_locations=[str(tmp_path)])
    finder = SimpleNamespace(find_spec=lambda name, *_: spec if name == "slow_package" else None)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: LazyModule("slow_package").part.NUMBER)
        time.sleep(0.1)  # the import of the package has begun
        second = pool.submit(lambda: LazyModule("slow_package.part").NUMBER)

    assert (first.result(), second.result()) == (7, 7)
