"""Clock for delays and quotas: the machine's, advanced or sped up by ``POST /_double/clock``.

Each account has a clock of its own, so that a test can let an hour pass without waiting, or in a minute, and
without disturbing the others. The journal and Lambda functions keep to the machine's time.
"""

import time
from typing import NamedTuple

from ministack.core.responses import get_account_id


class _Clock(NamedTuple):
    """Clock that showed `then` when the machine's showed `since`, and has run `speed` times as fast from there on."""

    since: float = 0.0
    then: float = 0.0
    speed: float = 1.0


_clocks: dict[str, _Clock] = {}


def now(account: str | None = None) -> float:
    """Returns seconds since 1970, for the account of the current request, or for `account`."""
    clock = _clocks.get(account or get_account_id(), _Clock())
    return clock.then + (time.time() - clock.since) * clock.speed


def change(account: str, advance: float = 0.0, speed: float | None = None) -> dict[str, float]:
    """Advances the account's clock, and sets its speed relative to the machine's; returns how far ahead it is now."""
    before, machine = _clocks.get(account, _Clock()), time.time()
    _clocks[account] = _Clock(machine, now(account) + advance, before.speed if speed is None else speed)
    return {"ahead": _clocks[account].then - machine, "speed": _clocks[account].speed}


def reset() -> None:
    _clocks.clear()
