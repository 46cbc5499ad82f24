"""The time that delays and quotas go by: the machine's, moved on or made to run faster by what ``POST /_double/clock`` says.

Each account has its own, so that a test can let an hour pass without waiting, or in a minute, and without disturbing the
others. The journal and Lambda functions keep to the machine's time.
"""

import time
from typing import NamedTuple

from ministack.core.responses import get_account_id


class _Clock(NamedTuple):
    """It showed `then` when the machine's showed `since`, and has run `speed` times as fast from there on."""

    since: float = 0.0
    then: float = 0.0
    speed: float = 1.0


_clocks: dict[str, _Clock] = {}


def now(account: str | None = None) -> float:
    """Seconds since 1970, for the account of the current request, or for `account`."""
    clock = _clocks.get(account or get_account_id(), _Clock())
    return clock.then + (time.time() - clock.since) * clock.speed


def change(account: str, advance: float = 0.0, speed: float | None = None) -> dict[str, float]:
    """Move the account's time on, and let it run that many times as fast as the machine's; how far ahead it now is."""
    before, machine = _clocks.get(account, _Clock()), time.time()
    _clocks[account] = _Clock(machine, now(account) + advance, before.speed if speed is None else speed)
    return {"ahead": _clocks[account].then - machine, "speed": _clocks[account].speed}


def reset() -> None:
    _clocks.clear()
