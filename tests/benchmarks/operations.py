"""What a clinic asks all day, as endless scripts of requests."""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar

from tests.benchmarks.stage import (
    CONNECTIONS,
    EMAIL,
    PASSWORD,
    RARE_NAMES,
    Ask,
    Stage,
)

FAR = 400  # days from now on which nothing is booked yet
FARTHER = 2_000  # and on which nothing will be, but for what is moved there
SLOT = 20  # minutes
DAY_SLOTS = 30  # in the doctors' ten hours
OPENS = 8  # o'clock
DEEP_ROWS = 10  # on a page: 10,000 patients have a thousand


class Operation(ABC):
    """One thing that is measured. `ask` says what a connection sends, `heard` what was answered to it."""

    name: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int] = 200

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.random = random.Random(self.name)
        self.today = datetime.now(UTC).date()

    @abstractmethod
    def ask(self, place: int) -> Ask:
        """The next request of the connection at `place`."""

    def heard(self, place: int, body: bytes) -> None:  # noqa: B027 - most have nothing to note
        """Take note of an answer."""

    def get(self, place: int, path: str) -> Ask:
        """A GET by the user of that connection."""
        return Ask("GET", path, None, self.token(place))

    def token(self, place: int) -> str:
        """The access token of a connection's user."""
        return self.stage.pairs[place].access_token

    def patient(self) -> int:
        """Anybody."""
        return self.random.randint(1, self.stage.patients)


class Read(Operation):
    name, title = "read", "read a patient"

    def ask(self, place: int) -> Ask:
        return self.get(place, f"/patients/{self.patient()}")


class List(Operation):
    name, title = "list", "list 20 patients"

    def ask(self, place: int) -> Ask:
        return self.get(place, f"/patients?page={self.random.randint(1, 20)}&per_page=20")


class FirstPage(Operation):
    name, title = "first_page", "page 1 of a list"
    number: ClassVar[int] = 1

    def ask(self, place: int) -> Ask:
        return self.get(place, f"/patients?page={self.number}&per_page={DEEP_ROWS}")


class DeepPage(FirstPage):
    name, title = "deep_page", "page 1,000 of a list"
    number = 1_000


class After(Operation):
    name, title = "after", "the rows after one in the middle"

    def ask(self, place: int) -> Ask:
        return self.get(place, f"/patients?after={self.patient()}&per_page={DEEP_ROWS}")


class SearchName(Operation):
    name, title = "search", "search by part of a name"

    def ask(self, place: int) -> Ask:
        name = self.random.choice(RARE_NAMES).lower()
        return self.get(place, f"/patients/search?q={name[2:10]}")


class SearchTypo(Operation):
    name, title = "typo", "search with a typo"

    def ask(self, place: int) -> Ask:
        name = self.random.choice(RARE_NAMES).lower()
        return self.get(place, f"/patients/search?q={name[:4] + name[5] + name[4] + name[6:]}")


class SearchPhone(Operation):
    name, title = "phone", "search by phone"

    def ask(self, place: int) -> Ask:
        number = 2_000_000 + self.patient()  # as the population's are
        return self.get(place, f"/patients/search?phone={number}")


# so many that no two of ten thousand who share a birthday have similar names
SYLLABLES = "ka lo mi ru se ta vo ne bri dan fel gu hin jor pex quo sty thu wam yel zor".split()


class Create(Operation):
    name, title, status = "create", "create a patient", 201

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.count = 0

    def ask(self, place: int) -> Ask:
        self.count += 1
        given, family = ("".join(self.random.choices(SYLLABLES, k=5)).title() for _ in range(2))
        born = date(1940, 1, 1) + timedelta(days=self.random.randrange(25_000))
        body = {
            "name": f"{given} {family}",
            "date_of_birth": born.isoformat(),
            "gender": "female",
            "phone": f"+1 305 {self.count // 10_000 + 200} {self.count % 10_000:04d}",
        }
        return Ask("POST", "/patients", body, self.token(place))


def calendar(days: int) -> Iterator[datetime]:
    """The beginnings of free times in so many days, on weekdays."""
    day = datetime.now(UTC).replace(hour=OPENS, minute=0, second=0, microsecond=0) + timedelta(days=days)
    while True:
        if day.weekday() < 5:
            for n in range(DAY_SLOTS):
                yield day + timedelta(minutes=SLOT * n)
        day += timedelta(days=1)


class Book(Operation):
    name, title, status = "book", "book an appointment", 201

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.calendars = {doctor: calendar(FAR) for doctor in stage.doctors}
        self.count = 0

    def ask(self, place: int) -> Ask:
        # all doctors in turn: clients do not wait for one calendar, and nobody is booked twice at a time
        doctor = self.stage.doctors[self.count % len(self.stage.doctors)]
        patient = self.count % self.stage.patients + 1
        self.count += 1
        body = {
            "patient_id": patient,
            "doctor_id": doctor,
            "date": next(self.calendars[doctor]).isoformat(),
            "duration": SLOT,
            "reason": "control",
        }
        return Ask("POST", "/appointments", body, self.token(place))


class Reschedule(Operation):
    name, title = "reschedule", "move an appointment"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.calendars = [calendar(FARTHER) for _ in range(CONNECTIONS)]

    def ask(self, place: int) -> Ask:
        # every connection moves one of its own with a doctor of its own, ever further into the future
        path = f"/appointments/{self.stage.movable[place]}"
        return Ask("PATCH", path, {"date": next(self.calendars[place]).isoformat()}, self.token(place))


class Availability(Operation):
    name, title = "availability", "free times of a week"

    def ask(self, place: int) -> Ask:
        first = self.today + timedelta(days=self.random.randint(1, 10))
        days = f"start_date={first}&end_date={first + timedelta(days=6)}"
        return self.get(place, f"/doctors/{self.random.choice(self.stage.doctors)}/availability?{days}")


class Day(Operation):
    name, title = "day", "day list of 20 doctors"

    def ask(self, place: int) -> Ask:
        day = self.stage.workdays[self.random.randrange(len(self.stage.workdays))]
        return self.get(place, f"/appointments?start_date={day}&end_date={day}&sort_by=date&per_page=1000")


class Pay(Operation):
    name, title, status = "pay", "take a payment", 201

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.count = 0

    def ask(self, place: int) -> Ask:
        bill = self.stage.open_bills[self.count % len(self.stage.open_bills)]
        self.count += 1
        return Ask(
            "POST", f"/billings/{bill}/payments", {"amount": "0.05", "method": "cash"}, self.token(place)
        )


class Revenue(Operation):
    name, title = "revenue", "revenue of a year by month"

    def ask(self, place: int) -> Ask:
        span = f"start_date={self.today - timedelta(days=364)}&end_date={self.today}&group_by=month"
        return self.get(place, f"/analytics/revenue?{span}")


class SignIn(Operation):
    name, title = "signin", "sign in"

    def ask(self, place: int) -> Ask:
        return Ask("POST", "/auth/login", {"email": EMAIL, "password": PASSWORD})


class Refresh(Operation):
    name, title = "refresh", "refresh the tokens"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.tokens = [pair.refresh_token for pair in stage.spare_pairs]

    def ask(self, place: int) -> Ask:
        return Ask("POST", "/auth/refresh-token", {}, self.tokens[place])

    def heard(self, place: int, body: bytes) -> None:
        self.tokens[place] = json.loads(body)["refresh_token"]


OPERATIONS: tuple[type[Operation], ...] = (
    Read,
    List,
    FirstPage,
    DeepPage,
    After,
    SearchName,
    SearchTypo,
    SearchPhone,
    Create,
    Book,
    Reschedule,
    Availability,
    Day,
    Pay,
    Revenue,
    SignIn,
    Refresh,
)
