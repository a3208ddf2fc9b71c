"""Calendar programs of other projects: khal, which reads what vdirsyncer has fetched, and ical.js."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

PYTHON_PACKAGES = ("khal==0.14.1", "vdirsyncer==0.21.0")
NPM_PACKAGE = "ical.js@2.2.1"

VDIRSYNCER = """
[general]
status_path = "{folder}/status"
[pair clinic]
a = "here"
b = "feed"
collections = null
[storage here]
type = "filesystem"
path = "{folder}/events"
fileext = ".ics"
[storage feed]
type = "http"
url = "{url}"
"""
KHAL = """
[calendars]
[[clinic]]
path = {folder}/events
readonly = True
[sqlite]
path = {folder}/khal.db
[locale]
local_timezone = UTC
default_timezone = UTC
timeformat = %H:%M
dateformat = %Y-%m-%d
longdateformat = %Y-%m-%d
datetimeformat = %Y-%m-%d %H:%M
longdatetimeformat = %Y-%m-%d %H:%M
"""
ICAL_JS = """
import ICAL from "ical.js";
import {readFileSync} from "node:fs";
const calendar = new ICAL.Component(ICAL.parse(readFileSync(0, "utf-8")));
for (const zone of calendar.getAllSubcomponents("vtimezone"))
  ICAL.TimezoneService.register(new ICAL.Timezone(zone));
const events = calendar.getAllSubcomponents("vevent").map((component) => {
  const event = new ICAL.Event(component);
  return [event.startDate.toJSDate().toISOString(), event.endDate.toJSDate().toISOString(),
          component.getFirstPropertyValue("status")];
});
console.log(JSON.stringify(events));
"""

Periods = list[tuple[datetime, datetime]]


@dataclass(frozen=True)
class CalendarReaders:
    """The programs, installed into a folder."""

    folder: Path

    @staticmethod
    def install(folder: Path) -> CalendarReaders:
        """Install the programs. This needs npm, node and a network."""
        run(sys.executable, "-m", "venv", str(folder / "python"))
        pip = str(folder / "python" / "bin" / "pip")
        run(pip, "install", "--quiet", "--disable-pip-version-check", *PYTHON_PACKAGES)
        run("npm", "install", "--silent", "--prefix", str(folder), NPM_PACKAGE)
        (folder / "read.mjs").write_text(ICAL_JS)
        return CalendarReaders(folder)

    def khal(self, url: str, name: str, first: datetime, days: int) -> Periods:
        """Synchronize the feed into the folder `name`. Return the events that are not cancelled."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "vdirsyncer").write_text(VDIRSYNCER.format(folder=folder, url=url))
        (folder / "khal").write_text(KHAL.format(folder=folder))
        binaries, sync = self.folder / "python" / "bin", folder / "vdirsyncer"
        for command in ("discover", "sync"):
            run(str(binaries / "vdirsyncer"), "-c", str(sync), command, text="y\n" * 5)
        output = run(
            *(str(binaries / "khal"), "-c", str(folder / "khal"), "list", "--once", "--day-format", ""),
            *("--format", "{start-date} {start-time}|{end-date} {end-time}|{status}"),
            *(first.strftime("%Y-%m-%d"), f"{days}d"),
        )
        rows = [line.split("|") for line in output.splitlines() if "|" in line]
        return sorted(
            (read_utc(start), read_utc(end)) for start, end, status in rows if "CANCELLED" not in status
        )

    def ical_js(self, content: bytes) -> Periods:
        """Return the events of a document that are not cancelled."""
        rows = json.loads(run("node", str(self.folder / "read.mjs"), text=content.decode()))
        return sorted(
            (datetime.fromisoformat(start), datetime.fromisoformat(end))
            for start, end, status in rows
            if status != "CANCELLED"
        )


def read_utc(text: str) -> datetime:
    """Return an instant that khal printed in UTC."""
    return datetime.fromisoformat(f"{text}+00:00")


def run(*command: str, text: str = "") -> str:
    """Return the output of a command. Raises RuntimeError with its messages if it fails."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, env=environment, timeout=600
    )
    if result.returncode != 0:
        raise RuntimeError(f"{command}: {result.stdout}{result.stderr}")
    return result.stdout


def clock_change(now: datetime, zone_name: str) -> datetime:
    """Return the first instant, at least ten days away, at which the clocks of a zone change."""
    zone, hour = ZoneInfo(zone_name), timedelta(hours=1)
    instant = now.replace(minute=0, second=0, microsecond=0) + timedelta(days=10)
    while instant.astimezone(zone).utcoffset() == (instant + hour).astimezone(zone).utcoffset():
        instant += hour
    return instant + hour
