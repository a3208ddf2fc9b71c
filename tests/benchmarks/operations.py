"""The measured operations: each generates an endless series of requests."""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar

from tests.benchmarks.environment import CONNECTIONS, EMAIL, PASSWORD, RARE_NAMES, ClinicData, Request

BOOKING_OFFSET = 400  # days from today; the generated data has no later appointments
MOVE_OFFSET = 2_000  # days from today; only moved appointments are later
SLOT = 20  # minutes
SLOTS_PER_DAY = 30  # in the ten working hours of a doctor
OPENING_HOUR = 8
PAGE_SIZE = 10  # with 10,000 patients a list has 1,000 pages


class Operation(ABC):
    """A measured operation. Connections are numbered from 0."""

    name: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int] = 200

    def __init__(self, data: ClinicData) -> None:
        self.data = data
        self.random = random.Random(self.name)
        self.today = datetime.now(UTC).date()

    @abstractmethod
    def next_request(self, index: int) -> Request:
        """Return the next request of a connection."""

    def on_response(self, index: int, body: bytes) -> None:  # noqa: B027 - optional
        """Process the response body of a connection."""

    def get(self, index: int, path: str) -> Request:
        """Return a GET request of a connection."""
        return Request("GET", path, None, self.token(index))

    def token(self, index: int) -> str:
        """Return the access token of a connection."""
        return self.data.tokens[index].access_token

    def patient(self) -> int:
        """Return a random patient id."""
        return self.random.randint(1, self.data.patients)


class Read(Operation):
    name, title = "read", "read a patient"

    def next_request(self, index: int) -> Request:
        return self.get(index, f"/patients/{self.patient()}")


class List(Operation):
    name, title = "list", "list 20 patients"

    def next_request(self, index: int) -> Request:
        return self.get(index, f"/patients?page={self.random.randint(1, 20)}&per_page=20")


class FirstPage(Operation):
    name, title = "first_page", "page 1 of a list"
    number: ClassVar[int] = 1

    def next_request(self, index: int) -> Request:
        return self.get(index, f"/patients?page={self.number}&per_page={PAGE_SIZE}")


class DeepPage(FirstPage):
    name, title = "deep_page", "page 1,000 of a list"
    number = 1_000


class After(Operation):
    name, title = "after", "page after a row in the middle"

    def next_request(self, index: int) -> Request:
        return self.get(index, f"/patients?after={self.patient()}&per_page={PAGE_SIZE}")


class SearchName(Operation):
    name, title = "search", "search by part of a name"

    def next_request(self, index: int) -> Request:
        name = self.random.choice(RARE_NAMES).lower()
        return self.get(index, f"/patients/search?q={name[2:10]}")


class SearchTypo(Operation):
    name, title = "typo", "search with a typo"

    def next_request(self, index: int) -> Request:
        name = self.random.choice(RARE_NAMES).lower()
        return self.get(index, f"/patients/search?q={name[:4] + name[5] + name[4] + name[6:]}")


class SearchPhone(Operation):
    name, title = "phone", "search by phone"

    def next_request(self, index: int) -> Request:
        number = 2_000_000 + self.patient()  # as in the generated data
        return self.get(index, f"/patients/search?phone={number}")


# Enough syllables that no two of 10,000 patients with the same birthday have similar names.
SYLLABLES = "ka lo mi ru se ta vo ne bri dan fel gu hin jor pex quo sty thu wam yel zor".split()


class Create(Operation):
    name, title, status = "create", "create a patient", 201

    def __init__(self, data: ClinicData) -> None:
        super().__init__(data)
        self.count = 0

    def next_request(self, index: int) -> Request:
        self.count += 1
        given, family = ("".join(self.random.choices(SYLLABLES, k=5)).title() for _ in range(2))
        birthday = date(1940, 1, 1) + timedelta(days=self.random.randrange(25_000))
        body = {
            "name": f"{given} {family}",
            "date_of_birth": birthday.isoformat(),
            "gender": "female",
            "phone": f"+1 305 {self.count // 10_000 + 200} {self.count % 10_000:04d}",
        }
        return Request("POST", "/patients", body, self.token(index))


def free_slots(days: int) -> Iterator[datetime]:
    """Yield the start times of slots on weekdays, `days` days from today and later."""
    day = datetime.now(UTC).replace(hour=OPENING_HOUR, minute=0, second=0, microsecond=0) + timedelta(
        days=days
    )
    while True:
        if day.weekday() < 5:
            for n in range(SLOTS_PER_DAY):
                yield day + timedelta(minutes=SLOT * n)
        day += timedelta(days=1)


class Book(Operation):
    name, title, status = "book", "book an appointment", 201

    def __init__(self, data: ClinicData) -> None:
        super().__init__(data)
        self.slots = {doctor: free_slots(BOOKING_OFFSET) for doctor in data.doctors}
        self.count = 0

    def next_request(self, index: int) -> Request:
        # All doctors in turn: clients do not wait for the lock of one doctor, and no patient has two
        # appointments at the same time.
        doctor = self.data.doctors[self.count % len(self.data.doctors)]
        patient = self.count % self.data.patients + 1
        self.count += 1
        body = {
            "patient_id": patient,
            "doctor_id": doctor,
            "date": next(self.slots[doctor]).isoformat(),
            "duration": SLOT,
            "reason": "control",
        }
        return Request("POST", "/appointments", body, self.token(index))


class Reschedule(Operation):
    name, title = "reschedule", "move an appointment"

    def __init__(self, data: ClinicData) -> None:
        super().__init__(data)
        self.slots = [free_slots(MOVE_OFFSET) for _ in range(CONNECTIONS)]

    def next_request(self, index: int) -> Request:
        # Every connection moves its own appointment, of its own doctor, to later and later times.
        path = f"/appointments/{self.data.movable_appointments[index]}"
        return Request("PATCH", path, {"date": next(self.slots[index]).isoformat()}, self.token(index))


class Availability(Operation):
    name, title = "availability", "free slots of a week"

    def next_request(self, index: int) -> Request:
        first = self.today + timedelta(days=self.random.randint(1, 10))
        days = f"start_date={first}&end_date={first + timedelta(days=6)}"
        return self.get(index, f"/doctors/{self.random.choice(self.data.doctors)}/availability?{days}")


class Day(Operation):
    name, title = "day", "day list of 20 doctors"

    def next_request(self, index: int) -> Request:
        day = self.random.choice(self.data.workdays)
        return self.get(index, f"/appointments?start_date={day}&end_date={day}&sort_by=date&per_page=1000")


class Pay(Operation):
    name, title, status = "pay", "take a payment", 201

    def __init__(self, data: ClinicData) -> None:
        super().__init__(data)
        self.count = 0

    def next_request(self, index: int) -> Request:
        bill = self.data.open_bills[self.count % len(self.data.open_bills)]
        self.count += 1
        return Request(
            "POST", f"/billings/{bill}/payments", {"amount": "0.05", "method": "cash"}, self.token(index)
        )


class Revenue(Operation):
    name, title = "revenue", "revenue of a year by month"

    def next_request(self, index: int) -> Request:
        period = f"start_date={self.today - timedelta(days=364)}&end_date={self.today}&group_by=month"
        return self.get(index, f"/analytics/revenue?{period}")


class SignIn(Operation):
    name, title = "signin", "sign in"

    def next_request(self, index: int) -> Request:
        return Request("POST", "/auth/login", {"email": EMAIL, "password": PASSWORD})


class Refresh(Operation):
    name, title = "refresh", "refresh the tokens"

    def __init__(self, data: ClinicData) -> None:
        super().__init__(data)
        self.tokens = [pair.refresh_token for pair in data.spare_tokens]

    def next_request(self, index: int) -> Request:
        return Request("POST", "/auth/refresh-token", {}, self.tokens[index])

    def on_response(self, index: int, body: bytes) -> None:
        self.tokens[index] = json.loads(body)["refresh_token"]


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
