"""How hard the clinic is attacked: every test run has the short form, `make robustness` the long one."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Counts, but for what ends in `_s`: seconds."""

    workers: int  # processes of the application
    rounds: int  # of each race
    crowd: int  # at once, in races that need no more
    operations: int  # replayed against the model, per engine
    clients: int  # at once, while operations are replayed
    writers: int  # at once, under faults
    writes: int  # acknowledged while nothing is away and workers are killed, per engine
    kills: int  # of worker processes, per engine
    hang_ups: int  # of clients before their answer
    outages: int  # of each store, of each kind
    held_s: float  # that a lock is held against the clinic
    slowest_s: float  # that an answer may take
    slowest_away_s: float  # that it may take while a store is away
    bad_values: int  # requests with one bad value somewhere, on both engines together
    guesses: int  # sign-ins of a known and of an unknown account whose times are compared
    tamperings: int  # of the audit, on both engines together
    damages: int  # backups cut short or with a flipped bit, on both engines together
    demo_patients: int  # of the made-up clinic that is backed up and restored

    @property
    def long(self) -> bool:
        """Whether this is `make robustness`."""
        return self is LONG


SHORT = Scale(
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
    slowest_s=math.inf,  # time limits belong to the long form: another test may use the processor
    slowest_away_s=math.inf,
    bad_values=400,
    guesses=8,
    tamperings=200,
    damages=50,
    demo_patients=6,
)
LONG = Scale(
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
    demo_patients=615,
)


def chosen() -> Scale:
    """The form that the environment asks for: `CLINIC_ROBUSTNESS=long`, else the short one."""
    return LONG if os.environ.get("CLINIC_ROBUSTNESS") == "long" else SHORT
