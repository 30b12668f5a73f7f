"""Per-example gradients with respect to the rank rows, and per-example inputs of the adapted layers.

The one file here that computes with torch.
"""

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from rbla_secure.lora.adapter import Adapter, AdapterLayout
from rbla_secure.lora.peft_io import attach, write_rows
from rbla_secure.tasks.datasets import LabelledImages

Gradients = npt.NDArray[np.float32]
# By adapted layer, shape (examples, in_features)
LayerInputs = dict[str, npt.NDArray[np.float64]]

# Bounds the memory of the intermediate values.
_AT_ONCE = 256


class ExampleGradients:
    """Gradients of the cross-entropy of single examples.

    Args:
        base: The frozen base model. Copied once for every rank.
        layout: The adapted layers.
    """

    def __init__(self, base: nn.Module, layout: AdapterLayout) -> None:
        self._base = base
        self._layout = layout
        self._models: dict[int, PeftModel] = {}

    def of(self, adapter: Adapter, examples: LabelledImages) -> Gradients:
        """Return the gradient of each example's loss at an adapter.

        Returns:
            Shape (examples, adapter.rank, row_length), float32.
        """
        network = self._network(adapter)
        weights = {name: value.detach() for name, value in network.named_parameters() if value.requires_grad}

        def loss(weights: dict[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            logits = functional_call(network, weights, (image.unsqueeze(0),))
            return functional.cross_entropy(logits, label.unsqueeze(0))

        each = vmap(grad(loss), in_dims=(None, 0, 0))
        parts = [
            self._rows(each(weights, images, labels))
            for images, labels in zip(
                torch.split(torch.tensor(examples.images), _AT_ONCE),
                torch.split(torch.tensor(examples.labels), _AT_ONCE),
                strict=True,
            )
        ]
        return np.concatenate(parts)

    def inputs(self, adapter: Adapter, examples: LabelledImages) -> LayerInputs:
        """Return, by adapted layer, its inputs at an adapter: hidden embeddings, or the images for the first layer.

        Returns:
            By layer of the layout, shape (examples, in_features), float64.
        """
        network = self._network(adapter)
        seen: LayerInputs = {}

        def keep(name: str, arguments: tuple[torch.Tensor, ...]) -> None:
            seen[name] = arguments[0].detach().double().numpy()

        hooks = [
            network.get_submodule(layer.name).register_forward_pre_hook(
                lambda _, arguments, name=layer.name: keep(name, arguments)
            )
            for layer in self._layout.layers
        ]
        try:
            with torch.no_grad():
                network(torch.tensor(examples.images))
        finally:
            for hook in hooks:
                hook.remove()
        return {layer.name: seen[layer.name] for layer in self._layout.layers}

    def _network(self, adapter: Adapter) -> nn.Module:
        if adapter.rank not in self._models:
            self._models[adapter.rank] = attach(self._base, layout=self._layout, rank=adapter.rank).eval()
        model = self._models[adapter.rank]
        write_rows(model, adapter)
        network: nn.Module = model.get_base_model()
        return network

    def _rows(self, gradients: dict[str, torch.Tensor]) -> Gradients:
        """Return the gradients of A and, by rank row, of B of every layer, side by side."""
        parts = []
        for layer in self._layout.layers:
            parts.append(gradients[f"{layer.name}.lora_A.default.weight"])
            parts.append(gradients[f"{layer.name}.lora_B.default.weight"].transpose(1, 2))
        found: Gradients = torch.cat(parts, dim=2).numpy()
        return found
