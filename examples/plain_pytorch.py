"""Builds a dataset from a CSV file and trains your own model on it in plain PyTorch."""

import tempfile
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import streamfeat
from streamfeat.events.synthetic import write_synthetic
from streamfeat.torch import WindowDataset


class NextItem(nn.Module):
    def __init__(self, num_items: int, width: int) -> None:
        super().__init__()
        self.item = nn.Embedding(num_items + 4, width)  # the last four are CLS, PAD, MASK and EMPTY
        self.attend = nn.Linear(width, 3 * width)
        self.score = nn.Linear(width, num_items)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross entropy in nats of each user's next item, predicted from those before it."""
        x = self.item(batch["item"])
        same_user = batch["segment"][:, :, None] == batch["segment"][:, None, :]  # a window holds several users
        x = x + nn.functional.scaled_dot_product_attention(*self.attend(x).chunk(3, dim=-1), attn_mask=same_user.tril())
        loss = nn.functional.cross_entropy(self.score(x).mT, batch["target_item"].long(), reduction="none")
        return (loss * batch["weight_item"]).sum() / batch["weight_item"].sum()  # weight 0: not a target


with tempfile.TemporaryDirectory() as folder:
    events, data = Path(folder, "events.csv"), Path(folder, "data")
    write_synthetic(events, num_users=300, num_events=15_000, seed=1, items_per_medium=100)
    schema = streamfeat.build(events, data, window_len=128, split="users:0.1").manifest.data_schema
    training = DataLoader(WindowDataset(data, objective="causal", batch_windows=4), batch_size=None)
    held_out = WindowDataset(data, objective="causal", batch_windows=4, split="validation")
    model = NextItem(schema.num_items, width=64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for epoch in range(4):
        for batch in training:
            optimizer.zero_grad()
            model(batch).backward()
            optimizer.step()
        with torch.no_grad():
            print(f"epoch {epoch}: {fmean(model(batch).item() for batch in held_out):.2f} nats on users held out")
