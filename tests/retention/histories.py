"""Histories to judge: dates in short, and a task that expires after each backup."""

import datetime
from zoneinfo import ZoneInfo

from ssfs.retention.rule import DatedVersion, decide

BERLIN = ZoneInfo("Europe/Berlin")
UTC = datetime.UTC
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)
WEEK = datetime.timedelta(days=7)


def at(text):
    """A moment from "2024-05-01" (02:00 UTC that day) or "2024-05-01 23:30" (UTC)."""
    if len(text) == len("2024-05-01"):
        text += " 02:00"
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


def history(*texts):
    """Versions 1, 2, 3 ... of these dates."""
    return [DatedVersion(n, at(text)) for n, text in enumerate(texts, start=1)]


def spaced(*gaps_days):
    """Versions 1, 2, 3 ... with these gaps between them, in days."""
    time = at("2024-01-01")
    versions = [DatedVersion(1, time)]
    for n, gap in enumerate(gaps_days, start=2):
        time += gap * DAY
        versions.append(DatedVersion(n, time))
    return versions


class Task:
    """A task under a policy; each backup is followed by an expiry over the survivors."""

    def __init__(self, policy, zone=UTC):
        self.policy = policy
        self.zone = zone
        self.versions = []
        self.reasons = {}
        self.next_sequence = 1

    def add(self, time, *, pinned=False):
        """Commit a version and expire nothing yet."""
        self.versions.append(DatedVersion(self.next_sequence, time, pinned))
        self.next_sequence += 1

    def expire(self, now):
        """Drop what the rule does not keep."""
        decisions = decide(self.versions, self.policy, self.zone, now)
        self.reasons = {d.sequence: d.reasons for d in decisions if d.keep}
        self.versions = [v for v in self.versions if v.sequence in self.reasons]

    def back_up(self, time):
        """One ordinary night."""
        self.add(time)
        self.expire(time)

    def kept(self):
        """Local date and reasons of each survivor."""
        return [
            (str(v.time.astimezone(self.zone).date()), ", ".join(self.reasons[v.sequence]))
            for v in self.versions
        ]
