"""AdamW over a model's named parameters, and its state as named tensors.

Source: Loshchilov and Hutter 2019, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from recurra.training.settings import TrainingSettings


def make_optimiser(
    parameters: Mapping[str, Tensor], settings: TrainingSettings, *, apart: bool = False
) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only, not on biases, gains and initial states.

    apart   give each parameter a group of its own, with its name, for rates of their own
    """
    matrices = {name: p for name, p in parameters.items() if p.dim() >= 2}
    others = {name: p for name, p in parameters.items() if p.dim() < 2}
    groups = [
        {"params": list(several.values()), "names": list(several), "weight_decay": decay}
        for several, decay in ((matrices, settings.weight_decay), (others, 0.0))
    ]
    if apart:
        groups = [
            {**group, "params": [parameter], "names": [name]}
            for group in groups
            for name, parameter in zip(group["names"], group["params"], strict=True)  # type: ignore[call-overload]
        ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
        # One call for all parameters; complex ones are not supported there.
        fused=all(p.is_floating_point() for p in parameters.values()),
    )


def set_learning_rate(
    optimiser: torch.optim.Optimizer, rate: float, factor: Callable[[str], float] | None = None
) -> None:
    """Use `rate` from the next step on; times the factor of a parameter's name, where given."""
    for group in optimiser.param_groups:
        group["lr"] = rate if factor is None else rate * factor(group["names"][0])


def optimiser_tensors(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The optimiser's state as `field/parameter` tensors; a parameter never stepped has none."""
    return {
        f"{field}/{name}": value
        for name, parameter in parameters.items()
        for field, value in optimiser.state.get(parameter, {}).items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
) -> None:
    """Put back what `optimiser_tensors` returned."""
    optimiser.state.clear()
    fused = bool(optimiser.defaults["fused"])
    for key, value in tensors.items():
        field, name = key.split("/", 1)
        parameter = parameters[name]
        if value.shape == parameter.shape and field != "step":
            # Fresh memory with the parameter's own strides, as the optimiser would make it: the
            # kernels then take the same path, and give the same bits, as without the restart.
            optimiser.state[parameter][field] = torch.empty_like(parameter).copy_(value).detach()
        else:
            device = parameter.device if fused else torch.device("cpu")
            optimiser.state[parameter][field] = value.to(device, copy=True)
