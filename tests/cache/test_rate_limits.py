"""Rate limits and what they record for the headers of a response, in Redis and in the memory of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
import time_machine

from cache import quotas
from cache.rate_limits import Limits
from cache.redis import redis_store
from tests.support.servers import RedisServer

RATE = "3 per minute"
START = 1_800_000_000.0


@pytest.fixture(params=["memory", "redis"])
def limits(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Limits]:
    """Return limits in the memory of this process or in Redis, which has no script yet."""
    redis_server.flush()
    url = redis_server.url if request.param == "redis" else None
    redis_store.init(url)
    redis_store.call(lambda client: client.script_flush(), None)
    limits = Limits()
    limits.init(enabled=True, redis_url=url)
    yield limits
    quotas.clear()
    redis_store.init(None)


def test_the_headers_show_what_is_left_and_when_there_is_more(limits: Limits) -> None:
    shown = []
    with time_machine.travel(START, tick=False) as clock:
        for _ in range(4):
            quotas.start()
            wait = limits.hit(RATE, "rita")
            shown.append((wait, quotas.headers()["RateLimit"]))
            clock.shift(10)
        clock.shift(25)  # the first hit is 65 s old
        quotas.start()
        shown.append((limits.hit(RATE, "rita"), quotas.headers()["RateLimit"]))

    assert shown == [
        (None, '"default";r=2;t=60'),
        (None, '"default";r=1;t=50'),
        (None, '"default";r=0;t=40'),
        (30, '"default";r=0;t=30'),
        (None, '"default";r=0;t=5'),
    ]
    assert quotas.headers()["RateLimit-Policy"] == '"default";q=3;w=60'


def test_a_request_counts_once_with_each_policy(limits: Limits) -> None:
    quotas.start()
    limits.hit(RATE, "address", "192.0.2.1")
    limits.hit("2 per hour", "register", "192.0.2.1", policy="register")
    limits.hit("2 per hour", "register", "192.0.2.1", policy="register")

    assert quotas.headers()["RateLimit-Policy"] == '"default";q=3;w=60, "register";q=2;w=3600'
    assert quotas.headers()["RateLimit"] == '"default";r=2;t=60, "register";r=1;t=3600'


def test_limits_that_are_off_have_no_headers(limits: Limits) -> None:
    limits.enabled = False
    quotas.start()

    assert limits.hit(RATE, "rita") is None
    assert limits.hit_and_check(RATE, ("rita",), "revoked") == (None, False)
    assert quotas.headers() == {}


def test_a_hit_its_headers_and_a_look_up_are_one_round_trip(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits()
    redis_store.init(redis_server.url)
    limits.init(enabled=True, redis_url=redis_server.url)
    redis_store.call(lambda client: client.set("revoked", 1), None)
    limits.hit(RATE, "tom")  # loads the scripts
    sent = []
    send = redis.Connection.send_packed_command
    monkeypatch.setattr(
        redis.Connection,
        "send_packed_command",
        lambda *arguments, **options: sent.append(arguments) or send(*arguments, **options),
    )

    found = [limits.hit_and_check(RATE, ("tom",), key)[1] for key in ("revoked", "valid")]
    refused, _found = limits.hit_and_check(RATE, ("tom",), "valid")

    assert found == [True, False]
    assert refused == 60
    assert len(sent) == 3
    redis_store.init(None)
