"""The retention rule once more, as slowly and plainly as possible, to compare with.

It walks back from the latest date one day at a time, the way one would with a wall calendar, and
shares no code with ssfs.retention.rule but the types.
"""

import datetime

ONE_DAY = datetime.timedelta(days=1)


def naive_reasons(versions, policy, zone, now):
    """The keep reasons of each version, as a dict by sequence."""
    past = [v for v in versions if not v.time > now]
    buckets = dict(_buckets(past, policy, zone))
    by_age = sorted((v.sequence for v in versions), reverse=True)
    must_stay = by_age[:1]
    if past and policy.days + policy.weeks + policy.months == 0:
        must_stay.append(max(v.sequence for v in past))

    result = {}
    for v in versions:
        reasons = []
        if v.sequence in must_stay:
            reasons.append("newest")
        if policy.keep_last > 1 and by_age.index(v.sequence) < policy.keep_last:
            reasons.append("last " + str(policy.keep_last))
        reasons += [name for name, holder in buckets.items() if holder == v.sequence]
        if v.pinned:
            reasons.append("pinned")
        if v not in past:
            reasons.append("future")
        result[v.sequence] = tuple(reasons)
    return result


def _buckets(past, policy, zone):
    """Name and holder of each bucket that has a version."""
    if not past:
        return
    sequences_on: dict[datetime.date, list[int]] = {}
    for v in past:
        sequences_on.setdefault(v.time.astimezone(zone).date(), []).append(v.sequence)
    day = max(sequences_on)
    reference = max(past, key=lambda v: v.sequence).time.astimezone(zone).date()
    days_after_reference = (day - reference).days

    tiers = [
        ("day %Y-%m-%d", days_after_reference + policy.days),
        ("week %G-W%V", policy.weeks),
        ("month %Y-%m", policy.months),
    ]
    for form, count in tiers:
        for _ in range(count):
            name = day.strftime(form)
            inside: list[int] = []
            while day.strftime(form) == name:
                inside += sequences_on.get(day, [])
                day -= ONE_DAY
            if inside:
                yield name, max(inside)
