"""The time that delays and quotas go by: the machine's, moved on by what ``POST /_double/clock`` says.

Each account has its own, so that a test can let an hour pass without waiting and without disturbing the others. The
journal and Lambda functions keep to the machine's time.
"""

import time

from ministack.core.responses import get_account_id

_ahead: dict[str, float] = {}


def now(account: str | None = None) -> float:
    """Seconds since 1970, for the account of the current request, or for `account`."""
    return time.time() + _ahead.get(account or get_account_id(), 0.0)


def advance(account: str, seconds: float) -> dict[str, float]:
    """Move the account's time on; how far ahead it now is."""
    _ahead[account] = _ahead.get(account, 0.0) + seconds
    return {"ahead": _ahead[account]}


def reset() -> None:
    _ahead.clear()
