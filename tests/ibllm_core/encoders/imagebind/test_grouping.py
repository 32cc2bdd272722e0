import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.encoders.imagebind.grouping import farthest_points, group_points


def cloud(num_points: int, seed: int) -> torch.Tensor:
    return torch.randn(1, num_points, 3, generator=torch.Generator().manual_seed(seed))


@given(num_points=st.integers(1, 40), share=st.floats(0.1, 1), seed=st.integers(0, 99))
def test_each_point_is_the_farthest_from_those_chosen_before_it(num_points: int, share: float, seed: int) -> None:
    points = cloud(num_points, seed)
    chosen = farthest_points(points, max(1, int(share * num_points)))[0].tolist()
    assert chosen[0] == 0
    assert len(set(chosen)) == len(chosen)
    plain = points[0].double().numpy()
    for step in range(1, len(chosen)):
        distances = np.linalg.norm(plain[:, None] - plain[chosen[:step]], axis=-1).min(1)
        assert np.isclose(distances[chosen[step]], distances.max(), rtol=1e-5)


def test_the_first_of_equally_far_points_is_taken() -> None:
    square = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0]]])
    assert farthest_points(square, 2).tolist() == [[0, 1]]


def test_clouds_do_not_disturb_each_other() -> None:
    clouds = torch.cat([cloud(30, seed) for seed in range(3)])
    together = group_points(clouds, 5, 4)
    for index in range(3):
        for all_of_them, alone in zip(together, group_points(clouds[index : index + 1], 5, 4), strict=True):
            assert torch.equal(all_of_them[index], alone[0])


def test_groups_hold_the_nearest_points_relative_to_their_centre() -> None:
    points = cloud(50, 7)
    centres, groups = group_points(points, 6, 4)
    for centre, group in zip(centres[0], groups[0], strict=True):
        distances = (points[0] - centre).norm(dim=-1)
        nearest = points[0][distances.argsort()[:4]] - centre
        assert torch.allclose(group, nearest)
        assert torch.equal(group[0], torch.zeros(3))


def test_close_neighbours_far_from_the_origin_are_told_apart() -> None:
    near = torch.tensor([[0.0, 0, 0], [0.002, 0, 0], [0.001, 0, 0], [0.004, 0, 0]]) + 30
    _, groups = group_points(near[None], 1, 2)
    assert torch.equal(groups[0, 0, 1], near[2] - near[0])


def test_a_cloud_in_bfloat16_is_grouped_in_float32() -> None:
    points = cloud(20, 3).bfloat16()
    assert all(part.dtype == torch.float32 for part in group_points(points, 3, 2))
