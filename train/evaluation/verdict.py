"""The verdict of an evaluation: is the model better than the baseline that was best on validation?"""

from collections.abc import Iterator, Sequence

from train.evaluation.figures import ALL_MEDIA, DifferenceLine, Seen, Standing, Verdict

_TIMES = {"given": "knowing the target's time", "hidden": "not knowing the target's time"}


def verdicts(differences: Sequence[DifferenceLine], seen: Seen) -> Iterator[Verdict]:
    """Of all media together: rankings with `seen` for each time, and ratings with the time given.

    A figure whose interval contains 0 is level.
    """
    for line in differences:
        of = line.protocol
        asked = of.seen == seen if line.figure == "ndcg@10" else of.time == "given"
        if line.is_best and of.medium == ALL_MEDIA and asked:
            others = [other for other in differences if (other.protocol, other.figure) == (of, line.figure)]
            unbeaten = tuple(other.baseline for other in others if other != line and _standing(other) != "better")
            text = _text(line)
            if unbeaten and _standing(line) == "better":
                text += f", but not better than {' and '.join(unbeaten)}"
            yield Verdict(of, line.figure, _standing(line), line.baseline, line.difference, unbeaten, text)


def _standing(line: DifferenceLine) -> Standing:
    if line.difference.low <= 0 <= line.difference.high:
        return "level"
    is_higher = line.difference.low > 0
    return "better" if is_higher == (line.figure == "ndcg@10") else "worse"


def _text(line: DifferenceLine) -> str:
    """A sentence without its subject: "ranks better than markov_chain by .028 NDCG@10 (95%: .014 to .042)"."""
    ranks, standing = line.figure == "ndcg@10", _standing(line)
    verb, unit = ("ranks", "NDCG@10") if ranks else ("rates", "RMSE")
    is_better = (line.difference.value >= 0) == ranks
    # The numbers say by how much it is better, or by how much worse.
    sign = 1 if line.difference.value >= 0 else -1
    value, *bounds = (sign * of for of in (line.difference.value, line.difference.low, line.difference.high))
    by = f"{_short(value)} {unit}"
    interval = f"(95%: {_short(min(bounds))} to {_short(max(bounds))})"
    when = f", {_TIMES[line.protocol.time]}" if ranks else ""
    if standing == "level":
        return f"{verb} level with {line.baseline}: {by} {'better' if is_better else 'worse'} {interval}{when}"
    return f"{verb} {standing} than {line.baseline} by {by} {interval}{when}"


def _short(value: float) -> str:
    """Three digits after the point, without a zero before it."""
    digits = f"{abs(value):.3f}".removeprefix("0")
    return f"−{digits}" if value < 0 and digits != ".000" else digits
