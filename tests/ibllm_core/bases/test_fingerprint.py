from typing import Any

import torch
from transformers import LlamaConfig

from ibllm_core.bases.fingerprint import Fingerprint


def fingerprint(config: dict[str, Any] | None = None, **tensors: torch.Tensor) -> str:
    result = Fingerprint(LlamaConfig(**(config or {})))
    for name, tensor in tensors.items():
        result.add(name, tensor)
    return result.hexdigest()


def test_order_does_not_matter_and_everything_else_does() -> None:
    a, b = torch.arange(6.0).view(2, 3), torch.ones(2, dtype=torch.bfloat16)
    original = fingerprint(a=a, b=b)
    assert fingerprint(b=b, a=a.clone()) == original
    others = [
        fingerprint(a=b, b=a),
        fingerprint(a=a),
        fingerprint(a=a.view(3, 2), b=b),
        fingerprint(a=a, b=b.view(torch.float16)),
        fingerprint(a=a, b=torch.nextafter(b, torch.zeros_like(b))),
    ]
    assert len({original, *others}) == 6


def test_a_transposed_view_counts_in_the_order_of_its_rows() -> None:
    a = torch.arange(6.0).view(2, 3)
    assert fingerprint(a=a.t()) == fingerprint(a=a.t().contiguous()) != fingerprint(a=a.view(3, 2))


def test_the_same_tensors_under_another_config_are_another_base() -> None:
    a = torch.ones(2)
    configs: list[dict[str, Any]] = [
        {},
        {"rms_norm_eps": 1e-2},
        {"num_key_value_heads": 8},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
    ]
    assert len({fingerprint(config, a=a) for config in configs}) == 4
    assert fingerprint({"max_position_embeddings": 77}, a=a) == fingerprint(a=a)


def test_the_hash_is_the_one_that_adapters_already_name() -> None:
    sha256 = fingerprint(a=torch.arange(6.0).view(2, 3), b=torch.ones(2, dtype=torch.bfloat16))
    assert sha256 == "f26e61e1095ff4599dbc63217d62ba0d7b04a3df4205e2f948b16a88142fb9a4"
