"""The optimizer's state as named tensors, for checkpoints. Loading checks it against the model."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`<parameter name>.<entry>` → tensor. A parameter that never had a gradient has no entry."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}.{entry}": value
        for parameter, entries in optimizer.state.items()
        for entry, value in entries.items()
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Loads the tensors that `optimizer_tensors` returned. Raises ValueError if they cannot belong to `model`."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    entries: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition(".")
        entries.setdefault(name, {})[entry] = value
    # load_state_dict puts each entry on its device.
    state = {index: entries[name] for index, name in enumerate(ordered) if name in entries}
    parameters = dict(model.named_parameters())
    turned = {names[p] for group in optimizer.param_groups if group.get("orthogonal") for p in group["params"]}
    for name in entries:
        _check_entries(name, entries[name], parameters.get(name), is_turned=name in turned)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _check_entries(name: str, entries: Mapping[str, Tensor], parameter: Tensor | None, *, is_turned: bool) -> None:
    """Raises ValueError if these cannot be the tensors of `parameter`: Muon's if it `is_turned` by Muon, or AdamW's.
    torch itself does not check shapes."""
    shapes = {entry: tuple(value.shape) for entry, value in entries.items()}
    expected = None if parameter is None else tuple(parameter.shape)
    moments = ("momentum",) if is_turned else ("exp_avg", "exp_avg_sq")
    if expected is None or shapes != {**dict.fromkeys(moments, expected), "step": ()}:
        raise ValueError(f"optimizer state of {name!r} has the shapes {shapes}, the parameter has {expected}")
