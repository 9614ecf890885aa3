"""Items of a history are those of the run by id, and by title and year where the ids are another site's."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfeat.builder.coordinator import build_shards
from streamfeat.events.user_histories import UserHistories
from streamfeat.progress import Note
from streamfeat.store.tables import ItemTable
from train.inference.catalogue import Catalogue
from train.inference.item_matching import find_items
from train.inference.recommend import Recommendation, recommend_steps
from train.training.loop import train_steps

Item = tuple[str, str, str | None]  # medium, raw id, title


def catalogue(*items: Item) -> Catalogue:
    media = tuple(sorted({medium for medium, _, _ in items}))
    table = ItemTable(*map(list, zip(*items, strict=True)), events=np.ones(0), targets=np.ones(0))
    return Catalogue(table, SimpleNamespace(media=media))


def history(*items: Item) -> UserHistories:
    rest = dict.fromkeys(("offsets", "item", "time", "rating", "status", "completion"), np.zeros(0))
    keys = [(medium, raw_id) for medium, raw_id, _ in items]
    return UserHistories(
        users=["mika"], items=keys, titles=[title or "" for _, _, title in items], recognised="", num_rows=0, undated=0,
        duplicates=0, rejected=[], read_otherwise=[], **rest,
    )  # fmt: skip


FILMS = catalogue(
    ("film", "1", "Matrix, The (1999)"),
    ("film", "2", "Seven Samurai (Shichinin no samurai) (1954)"),
    ("film", "3", "Léon & Mathilda (1994)"),
    ("film", "4", "Solaris (1972)"),
    ("film", "5", "Solaris (2002)"),
    ("film", "6", "Untitled"),
    ("series", "7", "Solaris (1972)"),
)


def dense(known: Catalogue, found: UserHistories, how: str = "title") -> list[int]:
    return find_items(known, found, how).dense.tolist()


def test_titles_are_the_same_in_the_forms_of_all_sites():
    """Case, accents, punctuation, articles at the end and further names in parentheses do not matter; the year does."""
    titles = [
        "The Matrix (1999)", "MATRIX, THE (1999)", "Shichinin no Samurai (1954)", "Seven Samurai (1954)",
        "Leon and Mathilda (1995)", "Solaris (2002)", "Solaris (1972)", "Solaris", "Untitled (2010)", "Matrix (1999)",
        "The Matrix (2021)",
    ]  # fmt: skip
    found = history(*(("film", f"x{i}", title) for i, title in enumerate(titles)))
    assert dense(FILMS, found) == [0, 0, 1, 1, 2, 4, 3, -1, 5, -1, -1]
    assert dense(FILMS, history(("series", "x", "Solaris (1972)"), ("movie", "y", "Solaris (1972)"))) == [6, -1]


def test_ids_are_used_where_half_of_them_are_known():
    """Otherwise the titles; the counts are said; the option decides against both."""
    mostly = history(("film", "1", "The Matrix (1999)"), ("film", "2", "Seven Samurai (1954)"), ("film", "x", None))
    found = find_items(FILMS, mostly, "auto")
    assert (found.dense.tolist(), found.notes) == ([0, 1, -1], ())
    other = history(("film", "tt1", "Solaris (2002)"), ("film", "tt2", "Léon & Mathilda (1994)"), ("film", "1", None))
    found = find_items(FILMS, other, "auto")
    assert found.dense.tolist() == [4, 2, -1]
    assert "matched by title and year: 2 of 3" in found.notes[0].text
    assert "it knows 1, which --match id uses" in found.notes[0].text
    assert dense(FILMS, other, "id") == [-1, -1, 0]
    assert dense(FILMS, mostly, "title") == [0, 1, -1]


def test_known_ids_with_other_titles_are_those_of_another_site():
    """Numbers of two sites overlap: by id, every event would be one of another item, and nothing would show it."""
    shifted = history(
        *(("film", str(i + 1), title) for i, title in enumerate(["a (1999)"] * 4 + ["The Matrix (1999)"]))
    )
    found = find_items(FILMS, shifted, "auto")
    assert found.dense.tolist() == [-1, -1, -1, -1, 0]
    assert found.notes[0].warning


def test_without_titles_ids_are_all_that_there_is():
    """A log of events has none."""
    nameless = history(("film", "x1", None), ("film", "x2", None), ("film", "1", None))
    assert find_items(FILMS, nameless, "auto").dense.tolist() == [-1, -1, 0]


def test_a_history_of_one_medium_has_that_of_a_run_whose_files_named_none():
    """These have the medium item. Of two media the ids could be the same, and a film is no anime."""
    run = catalogue(("item", "1", None), ("item", "2", None))
    found = find_items(run, history(("anime", "2", None), ("anime", "1", None)), "auto")
    assert found.dense.tolist() == [1, 0]
    assert "the history's medium anime is taken for that of the run" in found.notes[0].text
    assert dense(run, history(("anime", "2", None), ("manga", "2", None)), "id") == [-1, -1]
    assert dense(catalogue(("anime", "2", None)), history(("film", "2", None)), "id") == [-1]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=12), max_size=8), st.sampled_from(["auto", "id", "title"]))
def test_any_titles_are_matched_without_an_error_and_with_their_own(titles, how):
    """A title matches an item only if its own names do."""
    known = catalogue(("film", "1", "x (1990)"), *(("film", f"t{i}", title) for i, title in enumerate(titles)))
    found = find_items(known, history(*(("film", f"t{i}", title) for i, title in enumerate(titles))), how)
    assert len(found.dense) == len(titles)
    if how != "title":
        assert found.dense.tolist() == list(range(1, len(titles) + 1))


LETTERBOXD = "Date,Name,Year,Letterboxd URI,Rating\n"
IMDB = "Const,Your Rating,Date Rated,Title,Original Title,URL,Title Type,Year\n"


def test_a_list_of_another_site_is_asked_about_by_title(tmp_path: Path) -> None:
    """Lists of Letterboxd are built and trained on; IMDb's ratings of the same films are the history, in both ways."""
    for user in range(6):
        rows = [
            f"2015-01-{1 + (user + film) % 28:02d},Film {film},{1990 + film},https://x,{1 + film % 4}"
            for film in range(9)
        ]
        (tmp_path / f"user{user}.csv").write_text(LETTERBOXD + "\n".join(rows) + "\n", "utf-8")
    build_shards([str(tmp_path / "user*.csv")], tmp_path / "data", window_len=16)
    for _ in train_steps(tmp_path / "data", tmp_path / "run", {"layers": 1, "width": 16, "heads": 2, "steps": 2}):
        pass
    rows = [f"tt{film},8,2015-02-0{film + 1},Film {film},Film,https://x,Movie,{1990 + film}" for film in range(3)]
    path = tmp_path / "ratings.csv"
    path.write_text(IMDB + "\n".join([*rows, "tt99,8,,Other,Other,https://x,Movie,1950"]) + "\n", "utf-8")
    steps = list(recommend_steps(tmp_path / "run", path, k=3))
    notes = "\n".join(step.text for step in steps if isinstance(step, Note))
    (found,) = (step for step in steps if isinstance(step, Recommendation))
    assert "items matched by title and year: 3 of 4 (their ids are not the run's: it knows 0" in notes
    assert "1 events without a date" in notes
    assert (found.events, found.skipped, found.unknown_items) == (3, 1, ("tt99",))
    assert {item.item for item in found.media["film"]}.isdisjoint({f"Film {film} ({1990 + film})" for film in range(3)})
    undated = tmp_path / "undated.csv"
    undated.write_text(IMDB + "tt1,8,,Film 1,Film,https://x,Movie,1991\n", "utf-8")
    (alone,) = (
        step
        for step in recommend_steps(tmp_path / "run", undated, at=1_430_000_000)
        if isinstance(step, Recommendation)
    )
    assert (alone.events, alone.at) == (1, 1_430_000_000)
    by_id = [
        step for step in recommend_steps(tmp_path / "run", path, k=3, match="id") if isinstance(step, Recommendation)
    ]
    assert (by_id[0].events, by_id[0].skipped) == (0, 4)
