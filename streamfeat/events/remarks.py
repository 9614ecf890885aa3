"""What is said about the events of files: a user with far too many, ratings that may mean that there is none."""

from collections.abc import Mapping

from streamfeat.events.unrated import is_worth_a_word, told
from streamfeat.progress import Note

# (share of all events, times the mean of the others): a user with both is no person. The largest share in MovieLens-1M
# is .002, in MovieTweetings .003.
_IMPLAUSIBLE = ((0.1, 10), (0.01, 1000))
_FEWEST_USERS = 3


def busiest_user(name: str, most: int, num_events: int, num_users: int) -> list[Note]:
    """A warning about the user `name`, who has the `most` events, if these are too many for a person."""
    if num_users < _FEWEST_USERS:
        return []
    share, times = most / num_events, most * (num_users - 1) / max(num_events - most, 1)
    if not any(share >= least and times >= factor for least, factor in _IMPLAUSIBLE):
        return []
    told_of = (
        f"user {name!r} has {most:,} of {num_events:,} events ({share:.0%}), {times:,.0f} times as many as the mean of "
        "the others: if this id means that the user is not known, take these rows out, or leave their id empty"
    )
    return [Note(told_of, warning=True)]


def ratings_apart(counts: Mapping[float, int], rated: int) -> list[Note]:
    """A warning about the ratings apart from the others, with their `counts`, of `rated` ratings."""
    there = {level: num for level, num in counts.items() if is_worth_a_word(level, num / rated)}
    if not there:
        return []
    others = ", apart from the others" if sum(there.values()) < rated else ""
    shares = " and ".join(
        f"{num:,} of {rated:,} ratings ({num / rated:.1%}) are {level:g}" for level, num in there.items()
    )
    told_of = (
        f"{shares}{others}: if that means that there is no rating, build again with --unrated {told(list(there))} "
        "--overwrite; --unrated none says that it is one"
    )
    return [Note(told_of, warning=True)]
