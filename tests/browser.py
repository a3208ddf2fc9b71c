"""`python -m tests.browser`: try the console of `/docs` in Chromium, against a running demo clinic.

Signs in, searches, sends some examples, and takes screenshots at 1280 and 390 pixels. It needs Chromium
and the package playwright, which the project does not install: `pip install --target FOLDER playwright`, then
run with `PYTHONPATH=FOLDER`. The password is read from the variable `CLINIC_PASSWORD`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A machine without other hosts: Chromium's own background requests would fail.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
WIDTHS = (1280, 390)
# Operations with the expected status: the form has the documented example.
OPERATIONS = (("get_patients", "200"), ("get_patients_by_patient_id", "200"), ("post_visits", "201"))


def main() -> int:
    """Try the console at each width; return 1 with a problem, and 0 with a note if there is no browser."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://localhost:5000")
    parser.add_argument("--email", default="admin@clinic.com")
    parser.add_argument("--screenshots", type=Path, default=Path("/tmp"))
    arguments = parser.parse_args()
    with chromium() as browser:
        if browser is None:
            return 0
        problems = [problem for width in WIDTHS for problem in _try_console(browser, width, arguments)]
    print("\n".join(problems) or "The console works.")
    return 1 if problems else 0


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser. Without Chromium or playwright, print a note and yield None."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        executable = None
    if executable is None:
        print("NOT RUN: no Chromium, or no package playwright, on this machine.")
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


def _try_console(browser: Any, width: int, arguments: argparse.Namespace) -> list[str]:
    """Use the console once; return messages of the browser, requests to other hosts and wrong statuses."""
    problems: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda message: problems.append(f"{width}: {message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"{width}: {error}"))
    page.on("request", lambda request: _check_host(request.url, arguments.url, problems))
    page.goto(f"{arguments.url}/docs")
    page.wait_for_selector(".opblock")
    page.screenshot(path=arguments.screenshots / f"docs-{width}.png")
    page.fill("#email", arguments.email)
    page.fill("#password", os.environ["CLINIC_PASSWORD"])
    page.click("#sign-in button")
    page.wait_for_selector("#sign-out:not([hidden])")
    page.fill("#search", "admin visit")
    page.wait_for_selector("#operations-auth-post_auth_login", state="detached")
    page.fill("#search", "")
    for operation, status in OPERATIONS:
        tag = operation.split("_")[1]
        block = f"#operations-{tag}-{operation}"
        page.click(f"{block} .opblock-summary-control")
        page.click(f"{block} .execute")
        answer = page.wait_for_selector(f"{block} .live-responses-table tbody .response-col_status")
        if answer.inner_text().strip() != status:
            problems.append(f"{width}: {operation}: {answer.inner_text()}")
        page.locator(block).evaluate("block => block.scrollIntoView()")
        page.screenshot(path=arguments.screenshots / f"docs-{width}-{operation}.png")
    if page.evaluate("document.documentElement.scrollWidth") > width:
        problems.append(f"{width}: the page is wider than the window")
    if page.context.cookies():
        problems.append(f"{width}: the page has stored cookies")
    page.close()
    return problems


def _check_host(url: str, server: str, problems: list[str]) -> None:
    if not url.startswith((server, "data:")):
        problems.append(f"request to another host: {url}")


if __name__ == "__main__":
    sys.exit(main())
