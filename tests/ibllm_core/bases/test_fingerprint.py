import torch

from ibllm_core.bases.fingerprint import Fingerprint


def fingerprint(**tensors: torch.Tensor) -> str:
    result = Fingerprint()
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


def test_the_hash_is_the_one_that_adapters_already_name() -> None:
    sha256 = fingerprint(a=torch.arange(6.0).view(2, 3), b=torch.ones(2, dtype=torch.bfloat16))
    assert sha256 == "35e5a1222d69a799591c27a2b80b2327653e6ba2fb5bd9666a83da71ac695d89"
