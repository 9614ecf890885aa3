"""Small, rich histories for tests of every station."""

import random
from dataclasses import replace
from pathlib import Path

from reference_build import Event

STATUS_NAMES = ("planned", "watching", "completed", "on_hold", "dropped")


def invent_events(
    *, seed: int, num_users: int, media: dict[str, int], mean_events: int = 12, rating_step: float = 1.0
) -> list[Event]:
    """Small, rich histories: ties, duplicates, planned events, missing ratings, one long and one short user."""
    rng = random.Random(seed)
    events: list[Event] = []
    for user in range(num_users):
        num = 1 if user == 0 else 9 * mean_events if user == 1 else rng.randint(1, 2 * mean_events)
        time = 1_300_000_000 + rng.randint(0, 10**7)
        for _ in range(num):
            time += rng.choice([0, 0, 1, 60, 86_400])
            medium = rng.choice(list(media))
            rating = round(rng.randint(1, 10) * rating_step, 2) if rng.random() < 0.7 else None
            item = f"{medium[0]}{min(int(rng.expovariate(4 / media[medium])), media[medium] - 1)}"
            completion = rng.choice([0.25, 0.5, 1.0])
            events.append(Event(f"user{user}", item, medium, time, rating, rng.randrange(5), completion))
            if rng.random() < 0.05:
                events.append(events[-1])
    rng.shuffle(events)
    return events


def at_the_same_time(events: list[Event]) -> list[Event]:
    """The events, moved so that users begin within the same two days and many of them have events around any cut in
    time; but every ninth user begins four days later."""
    day, starts = 86_400, dict[str, int]()
    for event in events:
        starts[event.user] = min(starts.get(event.user, event.time), event.time)
    moved = {
        user: start - start % (2 * day) - (4 * day if place % 9 == 0 else 0)
        for place, (user, start) in enumerate(starts.items())
    }
    return [replace(event, time=event.time - moved[event.user] + 1_300_000_000) for event in events]


def write_csv(path: Path, events: list[Event]) -> Path:
    lines = ["user,item,medium,timestamp,rating,status,completion"]
    for e in events:
        rating = "" if e.rating is None else f"{e.rating:g}"
        lines.append(f"{e.user},{e.item},{e.medium},{e.time},{rating},{STATUS_NAMES[e.status]},{e.completion:g}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
