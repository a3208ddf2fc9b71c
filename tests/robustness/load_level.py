"""Load levels: every test run uses the short one, `make robustness` the long one."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class LoadLevel:
    """Counts of one load level. Names that end in `_s` are seconds."""

    workers: int  # worker processes of the application
    rounds: int  # of each race
    crowd: int  # concurrent requests in most races
    operations: int  # checked with the reference model, per engine
    clients: int  # concurrent clients of the reference model tests
    writers: int  # concurrent clients during faults
    writes: int  # acknowledged writes while workers are killed, per engine
    kills: int  # of worker processes, per engine
    hang_ups: int  # clients that disconnect before the response
    outages: int  # of PostgreSQL and of Redis, of each kind
    held_s: float  # duration of a lock by another connection
    slowest_s: float  # longest response time
    slowest_away_s: float  # longest response time while PostgreSQL or Redis is away
    bad_values: int  # requests with one invalid value, both engines together
    guesses: int  # sign-ins of a known and of an unknown account for the timing comparison
    tamperings: int  # of the audit log, both engines together
    damages: int  # truncated or changed backups, both engines together
    demo_patients: int  # of the synthetic clinic in the backup test
    messages: int  # reminders while workers of the queue are killed, per engine
    message_kills: int  # of these workers, per engine
    imported_patients: int  # of the synthetic clinic, from spreadsheets

    @property
    def long(self) -> bool:
        """Return True for `make robustness`."""
        return self is LONG


SHORT = LoadLevel(
    workers=2,
    rounds=1,
    crowd=12,
    operations=180,
    clients=8,
    writers=6,
    writes=50,
    kills=1,
    hang_ups=20,
    outages=1,
    held_s=6.0,
    slowest_s=math.inf,  # time limits belong to the long level: another test may use the processor
    slowest_away_s=math.inf,
    bad_values=400,
    guesses=8,
    tamperings=200,
    damages=50,
    demo_patients=6,
    messages=30,
    message_kills=2,
    imported_patients=12,
)
LONG = LoadLevel(
    workers=4,
    rounds=50,
    crowd=64,
    operations=50_000,
    clients=20,
    writers=20,
    writes=6_000,
    kills=60,
    hang_ups=1_000,
    outages=5,
    held_s=60.0,
    slowest_s=2.0,
    slowest_away_s=5.0,
    bad_values=24_000,
    guesses=60,
    tamperings=400,
    damages=60,
    demo_patients=int(os.environ.get("CLINIC_DRILL_PATIENTS", "615")),
    messages=1_000,
    message_kills=50,
    imported_patients=615,
)


def selected_level() -> LoadLevel:
    """Return the long level if `CLINIC_ROBUSTNESS=long`, otherwise the short one."""
    return LONG if os.environ.get("CLINIC_ROBUSTNESS") == "long" else SHORT
