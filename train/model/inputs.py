"""The model's input of a token: embeddings of its fields, its numbers, and flags that say which numbers are known."""

import math

from torch import Tensor, nn

from streamfeat.schema import Schema
from train.model.batch import NUM_GAPS, Batch


def num_tokens_of(num_values: int) -> int:
    """Rows in the table of an integer field: its values and the four special tokens."""
    return num_values + 4


class TokenInputs(nn.Module):
    """The sum of a token's embeddings, (B, T, D). The user id is not an input.

    A missing or masked number has the flag 0; no special number stands for it.
    """

    by_item = ("item.weight",)  # see carry.py
    by_medium = ("medium.weight",)

    def __init__(self, schema: Schema, width: int, num_values: int, *, relative: bool, causal: bool) -> None:
        super().__init__()
        self.relative = relative
        self.causal = causal
        self.item_scale = 0.3 * math.sqrt(width)  # the output uses the same table and needs small rows
        self.item = nn.Embedding(num_tokens_of(schema.num_items), width)
        self.medium = nn.Embedding(num_tokens_of(len(schema.media)), width)
        self.status = nn.Embedding(schema.status_tokens.empty + 1, width)
        self.values = nn.Linear(2 * num_values, width, bias=False)
        if relative:
            self.gap = nn.Embedding(NUM_GAPS, width)
        else:
            self.position = nn.Embedding(num_tokens_of(schema.window_len), width)
        if causal:
            self.told_gap = nn.Embedding(NUM_GAPS, width)

    def forward(self, batch: Batch) -> Tensor:
        """(B, T, D) float32, not yet normalised."""
        parts = [
            self.item(batch.item_BT) * self.item_scale,
            self.values(batch.value_BTC),
            self.medium(batch.medium_BT),
            self.status(batch.status_BT),
            self.gap(batch.gap_BT) if self.relative else self.position(batch.position_BT),
        ]
        if self.causal:
            parts.append(self.told_gap(batch.told_gap_BT))
        x_BTD: Tensor = sum(parts[1:], parts[0])
        return x_BTD

    def embed_items(self, item_N: Tensor) -> Tensor:
        """(N, D): the items' embeddings as the input uses them."""
        row_ND: Tensor = self.item(item_N)
        return row_ND * self.item_scale
