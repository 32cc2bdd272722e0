"""Our adapters on disk: everything that training changed, as safetensors with a typed header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from ibllm_core.adapter.header import Adapter, AdapterHeader, parse_header
from ibllm_core.bases.checks import is_finite
from ibllm_core.errors import BaseMismatchError, InvalidSpecError, InvalidWeightsError
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import adapted_parameters, group_of

FILENAME = "adapter.safetensors"
HEADER_KEY = "ibllm"


def write(folder: Path, adapter: Adapter) -> Path:
    """Write an adapter, each tensor in its own dtype; the file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILENAME
    partial = path.with_suffix(".part")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.tensors.items()}
    save_file(tensors, partial, metadata={HEADER_KEY: adapter.header.model_dump_json()})
    partial.replace(path)
    return path


def read_header(folder: Path) -> AdapterHeader:
    """The header alone, without reading weights."""
    path = folder / FILENAME
    if not path.exists():
        raise InvalidWeightsError(
            f"{path} does not exist: give a folder with an adapter, or a released .pth", file=str(path)
        )
    try:
        with safe_open(path, framework="pt") as file:
            return parse_header((file.metadata() or {}).get(HEADER_KEY), str(path))
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def read(folder: Path) -> Adapter:
    """An adapter with its weights in the dtype of the file; ``InvalidWeightsError`` names file and key."""
    header, path = read_header(folder), folder / FILENAME
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safetensors is no dict)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    return Adapter(header=header, tensors=check_finite(tensors, str(path)))


def install(model: ImageBindLLM, adapter: Adapter, *, base_sha256: str | None, source: str) -> None:
    """Put an adapter's weights into a model; everything is checked before the first weight changes.

    A stage-1 adapter also goes into a stage-2 model, whose own parts it leaves as they are. Raises
    ``BaseMismatchError`` with both hashes for another base, ``InvalidSpecError`` for another configuration,
    ``InvalidWeightsError`` for a key that is missing, unknown or of another shape. ``source`` says in messages where
    the adapter came from.
    """
    _check_base(model, adapter.header, base_sha256)
    _check_config(model, adapter.header)
    parameters = dict(model.named_parameters())
    expected = dict(adapted_parameters(model, adapter.header.stage))
    # A released stage-1 file may carry the base's norms beside what stage 1 trained.
    expected |= {n: parameters[n] for n in adapter.tensors if n in parameters and group_of(n) == "norm"}
    check_shapes(
        {name: tuple(tensor.shape) for name, tensor in adapter.tensors.items()},
        {name: tuple(parameter.shape) for name, parameter in expected.items()},
        source,
    )
    for name, tensor in adapter.tensors.items():
        check_finite({name: tensor.to(parameters[name].dtype)}, source)  # float16 ends at 65504
    with torch.no_grad():
        for name, tensor in adapter.tensors.items():
            parameters[name].copy_(tensor)


def build_model(llama: LlamaForCausalLM, adapter: Adapter, *, base_sha256: str | None, source: str) -> ImageBindLLM:
    """The model that an adapter's header describes around a base, with the adapter in it; raises as ``install``."""
    header = adapter.header
    model = ImageBindLLM(llama, header.feature_dim, header.config, header.stage)
    install(model, adapter, base_sha256=base_sha256, source=source)
    return model


def adapted_tensors(model: ImageBindLLM, header: AdapterHeader) -> dict[str, Tensor]:
    """What an adapter of the header's stage holds of a model, in float32."""
    return {name: p.detach().float() for name, p in adapted_parameters(model, header.stage)}


def check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Refuse weights that are not exactly the expected ones, naming the first key at fault."""
    problems = [(key, "is missing") for key in sorted(expected.keys() - found.keys())]
    problems += [(key, "has no place here") for key in sorted(found.keys() - expected.keys())]
    problems += [
        (key, f"has shape {found[key]}")
        for key in sorted(found.keys() & expected.keys())
        if found[key] != expected[key]
    ]
    if problems:
        key, problem = problems[0]
        shape = expected.get(key)
        wanted = f"; expected shape {shape}" if shape is not None else ""
        more = f" (and {len(problems) - 1} more keys are wrong)" if len(problems) > 1 else ""
        raise InvalidWeightsError(
            f"{source}: {key} {problem}{wanted}{more}: use the file that belongs to this base and configuration",
            file=source,
            key=key,
            expected=shape,
        )


def check_finite(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Refuse NaN and infinity, naming the key."""
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise InvalidWeightsError(
                f"{source}: {name} holds NaN or infinity in {tensor.dtype}: take an earlier checkpoint, or load the "
                "model in bfloat16 or float32",
                file=source,
                key=name,
            )
    return tensors


def _check_base(model: ImageBindLLM, header: AdapterHeader, base_sha256: str | None) -> None:
    if header.vocab_size not in (None, model.shape.vocab_size):
        raise BaseMismatchError(
            f"the adapter was trained on base {header.base} with {header.vocab_size} tokens (weights "
            f"{header.base_sha256}), but this base has {model.shape.vocab_size} (weights {base_sha256}): load it with "
            "its own base"
        )
    check_base_sha256(header, base_sha256)


def check_base_sha256(header: AdapterHeader, base_sha256: str | None) -> None:
    """Refuse a base of other weights with both hashes; where one of them is not known there is nothing to compare."""
    if header.base_sha256 and base_sha256 and header.base_sha256 != base_sha256:
        raise BaseMismatchError(
            f"the adapter was trained on base {header.base} with weights {header.base_sha256}, but this base's are "
            f"{base_sha256}: load it with its own base"
        )


def _check_config(model: ImageBindLLM, header: AdapterHeader) -> None:
    ours, theirs = model.config, header.config
    fields = ["fusion", "bind_norm"] + (["lora"] if header.stage == "stage2" else [])
    for field in fields:
        if getattr(ours, field) != getattr(theirs, field):
            raise InvalidSpecError(
                f"the adapter has {field} {getattr(theirs, field)!r}, but the model {getattr(ours, field)!r}: build "
                "the model with the configuration of the adapter's header"
            )


def _unreadable(path: Path, error: Exception) -> InvalidWeightsError:
    return InvalidWeightsError(
        f"{path} is no whole safetensors file ({error}): fetch or write it again", file=str(path)
    )
