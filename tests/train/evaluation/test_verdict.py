"""The verdict: better, worse or level, by how much; and what it advises."""

from dataclasses import fields, replace
from typing import Any

import pytest

from train.evaluation.advice import RunFacts, advice
from train.evaluation.bootstrap import Figure
from train.evaluation.figures import DifferenceLine, Protocol, Verdict
from train.evaluation.verdict import verdicts

OF_ALL = {"medium": "all", "users": 943, "seen": "removed", "time": "given"}
PROTOCOL = Protocol(**{field.name: OF_ALL.get(field.name) for field in fields(Protocol)})  # type: ignore[arg-type]
FACTS = RunFacts(False, 50.0, 64, 100, ((40, 1.2), (60, 1.0), (80, 1.1), (100, 1.3)))


def line(low: float, value: float, high: float, **changes: Any) -> DifferenceLine:
    protocol = replace(PROTOCOL, **{name: changes.pop(name) for name in ("medium", "seen", "time") if name in changes})
    found = DifferenceLine(protocol, "ndcg@10", "markov_chain", "markov_chain", True, Figure(value, low, high))
    return replace(found, **changes)


def verdict(of: DifferenceLine) -> Verdict:
    (found,) = verdicts([of], "removed")
    return found


@pytest.mark.parametrize(
    ("of", "standing", "text"),
    [
        (
            line(0.014, 0.028, 0.042),
            "better",
            "ranks better than markov_chain by .028 NDCG@10 (95%: .014 to .042), knowing the target's time",
        ),
        (
            line(-0.042, -0.028, -0.0141, time="hidden"),
            "worse",
            "ranks worse than markov_chain by .028 NDCG@10 (95%: .014 to .042), not knowing the target's time",
        ),
        (
            line(-0.004, 0.003, 0.01),
            "level",
            "ranks level with markov_chain: .003 NDCG@10 better (95%: −.004 to .010), knowing the target's time",
        ),
        (line(0.0, 0.003, 0.01), "level", None),
        (line(-0.01, -0.003, 0.0), "level", None),
        (
            line(-0.08, -0.06, -0.04, figure="rmse", baseline="biased_svd", seen="not used"),
            "better",
            "rates better than biased_svd by .060 RMSE (95%: .040 to .080)",
        ),
        (
            line(1.04, 1.06, 1.08, figure="rmse", seen="not used"),
            "worse",
            "rates worse than markov_chain by 1.060 RMSE (95%: 1.040 to 1.080)",
        ),
        (
            line(-0.01, 0.002, 0.02, figure="rmse", seen="not used"),
            "level",
            "rates level with markov_chain: .002 RMSE worse (95%: −.010 to .020)",
        ),
    ],
)
def test_a_verdict_says_by_how_much_and_is_level_if_the_interval_contains_zero(
    of: DifferenceLine, standing: str, text: str | None
) -> None:
    """A higher NDCG and a lower RMSE are better; an interval that touches 0 contains it."""
    found = verdict(of)
    assert found.standing == standing
    assert text is None or found.text == text
    assert (found.protocol, found.difference) == (of.protocol, of.difference)


def test_the_verdicts_are_of_all_media_seen_as_the_model_recommends_against_the_best_on_validation() -> None:
    """Rankings for each time, ratings with the time given."""
    lines = [
        line(1, 2, 3, medium=medium, seen=seen, time=time, is_best=is_best, figure=figure)
        for medium in ("all", "anime")
        for seen in ("removed", "kept")
        for time in ("given", "hidden")
        for is_best in (True, False)
        for figure in ("ndcg@10", "rmse")
        if figure == "ndcg@10" or seen == "kept"
    ]
    found = list(verdicts(lines, "removed"))
    assert [(of.protocol.time, of.figure) for of in found if of.figure == "ndcg@10"] == [
        ("given", "ndcg@10"),
        ("hidden", "ndcg@10"),
    ]
    assert [of.protocol.time for of in found if of.figure == "rmse"] == ["given"]
    assert {of.protocol.seen for of in found if of.figure == "ndcg@10"} == {"removed"}
    assert {of.protocol.medium for of in found} == {"all"}


def test_a_verdict_names_the_other_baselines_that_are_not_beaten() -> None:
    """Those of the same targets only."""
    best = line(0.01, 0.02, 0.03)
    level = line(-0.01, 0.01, 0.03, is_best=False, family="ease", baseline="ease")
    beaten = line(0.01, 0.02, 0.03, is_best=False, family="item_knn", baseline="item_knn")
    hidden = replace(line(-0.01, 0.0, 0.03, is_best=False, time="hidden"), family="popularity", baseline="popularity")
    (found,) = verdicts([best, level, beaten, hidden], "removed")
    assert found.unbeaten == ("ease",)
    assert found.text.endswith(", but not better than ease")
    assert advice([found], FACTS) != ()


BETTER, LEVEL = verdict(line(0.01, 0.02, 0.03)), verdict(line(-0.01, 0.0, 0.01))
IMPROVING = ((40, 1.2), (100, 1.0))


@pytest.mark.parametrize(
    ("facts", "of", "word"),
    [
        (replace(FACTS, validated=IMPROVING), LEVEL, "--epochs"),
        (replace(FACTS, validated=((20, 1.0), (60, 1.1), (100, 1.2))), LEVEL, "--learning-rate, a higher --dropout"),
        (replace(FACTS, is_split_by_users=True), LEVEL, "--split last:2"),
        (replace(FACTS, mean_events=100.0), LEVEL, "larger --window-len"),
        (replace(FACTS, mean_events=4.0), LEVEL, "4.0 training events"),
        (FACTS, replace(LEVEL, baseline="popularity_half_life_1d"), "`refresh RUN EVENTS`"),
        (FACTS, LEVEL, "another --preset"),
    ],
)
def test_advice_follows_from_a_fact_of_the_run(facts: RunFacts, of: Verdict, word: str) -> None:
    """Each fact alone gives its advice and no other; a model that is better gets none."""
    (text,) = advice([BETTER, of], facts)
    assert word in text
    assert advice([BETTER], facts) == ()
