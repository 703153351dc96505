"""A clock that stands until a test moves it."""

from datetime import datetime

from imgalign.preferences.records import utc_now


class Clock:
    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> datetime:
        return self.now
