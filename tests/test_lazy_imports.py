"""Libraries that a server process imports with their first use."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction

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
