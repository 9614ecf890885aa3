"""Feeds a `WindowStream` into a jit-compiled JAX step, without PyTorch."""

import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

import streamfeat
from streamfeat import WindowStream
from streamfeat.events.synthetic import write_synthetic

FIELDS = ("item", "target_item", "weight_item")  # the arrays that this model reads; the others stay on the host


def mean_loss(weights: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
    """Cross entropy in nats of each next item, predicted from the item before it. Weight 0: not a target."""
    logits = weights["before"][batch["item"]] @ weights["after"] + weights["popularity"]
    log_probs = jax.nn.log_softmax(logits)
    losses = -jnp.take_along_axis(log_probs, batch["target_item"][..., None], axis=-1)[..., 0]
    return (losses * batch["weight_item"]).sum() / batch["weight_item"].sum()


@partial(jax.jit, donate_argnums=0)
def step(weights: dict[str, jax.Array], batch: dict[str, jax.Array]) -> tuple[dict[str, jax.Array], jax.Array]:
    loss, gradients = jax.value_and_grad(mean_loss)(weights, batch)
    return jax.tree.map(lambda w, g: w - 2.0 * g, weights, gradients), loss


with tempfile.TemporaryDirectory() as folder:
    events, data = Path(folder, "events.csv"), Path(folder, "data")
    write_synthetic(events, num_users=300, num_events=15_000, seed=1, items_per_medium=50)
    schema = streamfeat.build(events, data, window_len=128, split="users:0.1").manifest.data_schema
    before, after = jax.random.split(jax.random.key(0))
    weights = {
        "before": 0.3 * jax.random.normal(before, (schema.num_items + 4, 32)),  # the last four: CLS, PAD, MASK, EMPTY
        "after": 0.3 * jax.random.normal(after, (32, schema.num_items)),
        "popularity": jnp.zeros(schema.num_items),
    }
    # copy=True: JAX may keep NumPy arrays and compute later, when the stream has written the next batch into them.
    with WindowStream(data, objective="causal", batch_windows=4, copy=True) as stream:
        for epoch in range(5):
            losses = []
            for batch in stream:
                weights, loss = step(weights, {name: batch[name] for name in FIELDS})
                losses.append(loss)
            print(f"epoch {epoch}: {jnp.stack(losses).mean():.2f} nats")
