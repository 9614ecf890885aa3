"""All tables of a run's training events, and their file: `RUN/terms.safetensors`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from streamfeat.errors import DamagedError
from streamfeat.kernels.neighbours import Neighbours
from streamfeat.kernels.residuals import RatingTable
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import Manifest
from train.terms.popularity import PopularityCounts, count_popularity
from train.terms.ratings import rating_table
from train.terms.transitions import Transitions, count_transitions
from train.terms.watched import Watched, read_training

TERMS = "terms.safetensors"


@dataclass(frozen=True)
class Terms:
    """The tables. They depend on the dataset alone, so every run on it has the same."""

    popularity: PopularityCounts
    transitions: Transitions
    ratings: RatingTable

    def to_bytes(self) -> bytes:
        """The content of the file."""
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
        content: bytes = safetensors.numpy.save(arrays)
        return content

    @classmethod
    def from_bytes(cls, content: bytes, where: Path) -> "Terms":
        """The tables in the content of a file. Raises DamagedError if it is damaged."""
        try:
            arrays = safetensors.numpy.load(content)
            return cls(
                PopularityCounts(**{name: arrays[f"popularity.{name}"] for name in ("edges", "bin", "item", "sums")}),
                Transitions(Neighbours(*(arrays[f"transitions.{name}"] for name in Neighbours._fields))),
                RatingTable(*(arrays[f"ratings.{name}"] for name in RatingTable._fields)),
            )
        except (SafetensorError, KeyError) as error:
            raise DamagedError(
                f"{where}: cannot be read ({error}); run `train --resume`, which writes it again"
            ) from None


def build_terms(dataset: Path, manifest: Manifest) -> Terms:
    """Reads the training events of a dataset and counts them. Raises the errors of `HistoryReader`."""
    held_out = read_held_out(dataset)
    with HistoryReader(dataset, manifest) as reader:

        def batches() -> Iterator[Watched]:
            return read_training(reader, held_out)

        return Terms(
            count_popularity(batches, manifest.time_min, manifest.time_max, manifest.num_items),
            count_transitions(batches, manifest.num_items),
            rating_table(batches, manifest),
        )
