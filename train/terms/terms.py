"""All tables of a run's training events, and their file: `RUN/terms.safetensors`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from streamfeat.errors import DamagedError
from streamfeat.kernels.neighbours import Neighbours
from streamfeat.kernels.residuals import RatingTable
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import Manifest
from train.terms.popularity import PopularityCounts, add_popularity, count_popularity
from train.terms.ratings import rating_table
from train.terms.transitions import Transitions, add_transitions, count_transitions
from train.terms.watched import Watched, read_training

TERMS = "terms.safetensors"

_REMEDY = "run `train --resume`, which writes it again"


@dataclass(frozen=True)
class Terms:
    """The tables. They depend on the dataset alone, so every run on it has the same."""

    popularity: PopularityCounts
    transitions: Transitions
    ratings: RatingTable

    def to_bytes(self, facts: Mapping[str, str] | None = None) -> bytes:
        """The content of a file; `facts` are texts beside the tables."""
        tables = {
            "popularity": self.popularity.to_arrays(),
            "transitions": self.transitions.to_arrays(),
            "ratings": self.ratings._asdict(),
        }
        # safetensors writes the memory of an array as it lies, so it must be in order.
        arrays = {
            f"{table}.{name}": np.ascontiguousarray(array)
            for table, arrays in tables.items()
            for name, array in arrays.items()
        }
        content: bytes = safetensors.numpy.save(arrays, metadata=dict(facts) if facts else None)
        return content

    @classmethod
    def from_bytes(cls, content: bytes, where: Path, remedy: str = _REMEDY) -> "Terms":
        """The tables in the content of a file. Raises DamagedError if it is damaged."""
        try:
            arrays = safetensors.numpy.load(content)
            return cls(
                PopularityCounts(**{name: arrays[f"popularity.{name}"] for name in ("edges", "bin", "item", "sums")}),
                Transitions(Neighbours(*(arrays[f"transitions.{name}"] for name in Neighbours._fields))),
                RatingTable(*(arrays[f"ratings.{name}"] for name in RatingTable._fields)),
            )
        except (SafetensorError, KeyError) as error:
            raise DamagedError(f"{where}: cannot be read ({error}); {remedy}") from None

    def with_later(self, watched: Watched) -> "Terms":
        """The tables with the events of `watched` after the last counted one. Events before that only show what the
        later ones follow."""
        is_later = watched.time > self.popularity.last_time
        if not is_later.any():
            return self
        time, item = watched.time[is_later], watched.item[is_later].astype(np.int32)
        num_items = len(self.transitions.neighbours.num_V)
        return replace(
            self,
            popularity=add_popularity(self.popularity, time, item, num_items),
            transitions=add_transitions(self.transitions, watched, self.popularity.last_time),
        )


def build_terms(dataset: Path, manifest: Manifest) -> Terms:
    """Reads the training events of a dataset and counts them. Raises the errors of `HistoryReader`."""
    held_out = read_held_out(dataset)
    with HistoryReader(dataset, manifest) as reader:

        def batches() -> Iterator[Watched]:
            return read_training(reader, held_out)

        return Terms(
            count_popularity(batches, manifest.time_min, manifest.time_max, manifest.num_items),
            count_transitions(batches, sum(scale.targets for scale in manifest.scales), manifest.num_items),
            rating_table(batches, manifest),
        )
