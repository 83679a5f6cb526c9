"""Small torch modules, published into a directory as versions of a model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from modelparams.hashes import write_hashes
from modelparams.keys import LocalKeyProvider
from modelparams.names import ModelName, Version
from modelparams.publish import Published, publish
from modelparams.store import FileStore
from modelparams.trust import SigningKey, TrustPolicy


class Small(nn.Module):
    """A tied head, a scalar buffer, batch statistics, an empty parameter and a buffer that is not saved."""

    def __init__(self, width: int = 4, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, width, dtype=dtype)
        self.inner = nn.Linear(width, width, dtype=dtype)
        self.norm = nn.BatchNorm1d(width, dtype=dtype)
        self.head = nn.Linear(width, 8, bias=False, dtype=dtype)
        self.head.weight = self.embed.weight
        self.nothing = nn.Parameter(torch.empty(0, width, dtype=dtype))
        self.register_buffer("scale", torch.tensor(1.0, dtype=dtype))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch,) to (batch, 8)."""
        return self.head(self.norm(self.inner(self.embed(tokens)))) * self.scale


class Repository:
    """A store in a directory, and what opens it."""

    def __init__(self, folder: Path, model: str = "small") -> None:
        self.folder, self.model = folder, ModelName(model)
        self.store, self.keys, self.trust = folder / "store", folder / "keys", folder / "trust.json"
        self.signer = SigningKey.generate()
        self.keys.mkdir(parents=True)
        (self.keys / "kek").write_bytes(os.urandom(32))
        self.trust.write_bytes(TrustPolicy.of(self.signer).to_json())

    def publish(self, version: str, tensors: Mapping[str, Tensor] | nn.Module, **options: Any) -> Published:
        """Publish a module's tensors, or any."""
        if isinstance(tensors, nn.Module):
            tensors = tensors_of(tensors)
        directory = self.folder / f"v{version}"
        directory.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps({"model_type": "small"}))
        write_hashes(directory)
        return publish(
            directory,
            FileStore(self.store),
            model=self.model,
            version=Version(version),
            keys=LocalKeyProvider(self.keys),
            key_ref="kek",
            signers=options.pop("signers", [self.signer]),
            cache=self.folder / "cache",
            **options,
        )

    def blobs(self) -> list[Path]:
        """The store's blobs, the largest last."""
        return sorted(
            (file for file in (self.store / "blobs" / "sha256").iterdir() if file.is_file()),
            key=lambda file: (file.stat().st_size, file.name),
        )


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """A state dict with each tied tensor once, by its first name."""
    seen: set[int] = set()
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach().clone()
    return found


def seeded(seed: int, **options: Any) -> Small:
    """A module that is another one for another seed, ready to be asked."""
    torch.manual_seed(seed)
    module = Small(**options)
    with torch.no_grad():
        for tensor in tensors_of_places(module):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.1)
    return module.eval()


def tensors_of_places(module: nn.Module) -> list[Tensor]:
    """The very tensors of a state dict."""
    return list({id(t): t for t in module.state_dict(keep_vars=True).values()}.values())
