"""ImageBind's seven towers written out plainly, one sample at a time, as the yardstick for the fast implementation.

`state` holds the tensors under their released names; sizes are read off them, and every function computes in their
dtype. A tower's output is its head's, L2-normalised, times clip(exp(log_logit_scale), max=100) where it has a scale.

Shapes: B samples, S clips, C channels, T frames, H height, W width, P patches, L tokens, D trunk width, E output width,
N points, G groups, K neighbours, d head width.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

State = Mapping[str, Tensor]

IMU_PATCH = 8
MAX_SCALE = 100
TRUNK_EPS = 1e-6  # the blocks, the pre-norm of vision, and all heads
STEM_EPS = 1e-5
POINT_EPS = 1e-5  # torch's default: no source names another for the point trunk
BATCH_NORM_EPS = 1e-5


def over_clips(encode: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
    """The mean of the scaled unit vectors of clips [B, S, ...] -> [B, E], itself not of unit length."""
    return torch.stack([encode(clips_S).mean(dim=0) for clips_S in clips])


def vision(state: State, frames: Tensor, heads: int) -> Tensor:
    """Frames [B, 3, 2, H, W], or images [B, 3, H, W] seen as two equal frames -> unit vectors [B, E]."""
    if frames.dim() == 4:
        frames = torch.stack([frames, frames], dim=2)
    outputs = []
    for frames_CTHW in frames:
        tokens_PD = patches(state["modality_preprocessors.vision.rgbt_stem.proj.1.weight"], frames_CTHW)
        positions = state["modality_preprocessors.vision.pos_embedding_helper.pos_embed"]
        x_LD = after_cls(state, "vision", tokens_PD) + positions[0]
        x_LD = layer_norm(state, "modality_trunks.vision.pre_transformer_layer.0", x_LD, TRUNK_EPS)
        outputs.append(head(state, "vision", "0", "2", trunk(state, "vision", x_LD, heads)[0]))
    return torch.stack(outputs)


def audio(state: State, mel: Tensor, heads: int, stride: int) -> Tensor:
    """Log-mel pictures [B, 1, mels, steps] -> [B, E]; the patches overlap where the stride is below their side."""
    return one_channel(state, "audio", "rgbt_stem", mel, heads, stride)


def depth(state: State, disparity: Tensor, heads: int) -> Tensor:
    """Disparity [B, 1, H, W] -> [B, E]."""
    return one_channel(state, "depth", "depth_stem", disparity, heads)


def thermal(state: State, picture: Tensor, heads: int) -> Tensor:
    """Thermal pictures [B, 1, H, W] -> [B, E]."""
    return one_channel(state, "thermal", "rgbt_stem", picture, heads)


def imu(state: State, signal: Tensor, heads: int) -> Tensor:
    """Six axes [B, 6, samples] -> [B, E]: windows of 8 samples, each flattened axis after axis to 48 numbers."""
    outputs = []
    for signal_6T in signal:
        windows = [signal_6T[:, t : t + IMU_PATCH].reshape(-1) for t in range(0, signal_6T.shape[1], IMU_PATCH)]
        tokens_PD = torch.stack(windows) @ state["modality_preprocessors.imu.imu_stem.proj.weight"].T
        tokens_PD = layer_norm(state, "modality_preprocessors.imu.imu_stem.norm_layer", tokens_PD, STEM_EPS)
        x_LD = after_cls(state, "imu", tokens_PD) + state["modality_preprocessors.imu.pos_embed"][0]
        outputs.append(scaled(state, "imu", head(state, "imu", "0", "3", trunk(state, "imu", x_LD, heads)[0])))
    return torch.stack(outputs)


def text(state: State, ids: Tensor, heads: int) -> Tensor:
    """Token ids [B, L] -> [B, E]: causal, read at the first place of the greatest id, which is the end of the text."""
    outputs = []
    for ids_L in ids.tolist():
        embedding = state["modality_preprocessors.text.token_embedding.weight"]
        x_LD = embedding[ids_L] + state["modality_preprocessors.text.pos_embed"][0]
        end = ids_L.index(max(ids_L))
        last_D = trunk(state, "text", x_LD, heads, causal=True)[end]
        outputs.append(scaled(state, "text", head(state, "text", "proj.0", "proj.1", last_D)))
    return torch.stack(outputs)


def points(state: State, xyz: Tensor, heads: int, groups: int, neighbours: int) -> Tensor:
    """Clouds [B, N, 3] -> [B, E] in the way of Point-BERT, `x = block(x + pos)` in every block.

    The tokens are the groups around `groups` centres; their maximum stands beside the class token at the end.
    """
    prefix = "point_trunk.point_encoder"
    outputs = []
    for xyz_N3 in xyz:
        centres_G3 = xyz_N3[farthest_points(xyz_N3, groups)]
        tokens_GD = torch.stack(
            [
                linear(
                    state, f"{prefix}.reduce_dim", group_feature(state, nearest(xyz_N3, centre, neighbours) - centre)
                )
                for centre in centres_G3
            ]
        )
        hidden = gelu(linear(state, f"{prefix}.pos_embed.0", centres_G3))
        pos_LD = torch.cat([state[f"{prefix}.cls_pos"][0], linear(state, f"{prefix}.pos_embed.2", hidden)])
        x_LD = torch.cat([state[f"{prefix}.cls_token"][0], tokens_GD])
        for index in range(count_blocks(state, f"{prefix}.blocks.blocks")):
            x_LD = point_block(state, f"{prefix}.blocks.blocks.{index}", x_LD + pos_LD, heads)
        x_LD = layer_norm(state, f"{prefix}.norm", x_LD, POINT_EPS)
        cloud = torch.cat([x_LD[0], x_LD[1:].amax(dim=0)]) @ state["point_trunk.pc_projection"]
        outputs.append(scaled(state, "point", head(state, "point", "0", "2", cloud)))
    return torch.stack(outputs)


def one_channel(
    state: State, modality: str, stem: str, pictures: Tensor, heads: int, stride: int | None = None
) -> Tensor:
    """The shared path of audio, depth and thermal."""
    prefix = f"modality_preprocessors.{modality}"
    outputs = []
    for picture_CHW in pictures:
        tokens_PD = patches(state[f"{prefix}.{stem}.proj.weight"], picture_CHW, stride)
        tokens_PD = layer_norm(state, f"{prefix}.{stem}.norm_layer", tokens_PD, STEM_EPS)
        x_LD = after_cls(state, modality, tokens_PD) + state[f"{prefix}.pos_embedding_helper.pos_embed"][0]
        first_D = trunk(state, modality, x_LD, heads)[0]
        outputs.append(scaled(state, modality, head(state, modality, "0", "2", first_D)))
    return torch.stack(outputs)


def patches(kernel: Tensor, picture: Tensor, stride: int | None = None) -> Tensor:
    """Tokens [P, D], row after row: token = sum of kernel [D, ..., side, side] * patch, of a picture [..., H, W]."""
    side = kernel.shape[-1]
    step = stride or side
    height, width = picture.shape[-2:]
    tokens = []
    for top in range(0, height - side + 1, step):
        for left in range(0, width - side + 1, step):
            patch = picture[..., top : top + side, left : left + side]
            tokens.append(kernel.flatten(1) @ patch.flatten())
    return torch.stack(tokens)


def after_cls(state: State, modality: str, tokens_PD: Tensor) -> Tensor:
    """The class token, then the patches [1 + P, D]."""
    return torch.cat([state[f"modality_preprocessors.{modality}.cls_token"][0], tokens_PD])


def trunk(state: State, modality: str, x_LD: Tensor, heads: int, *, causal: bool = False) -> Tensor:
    """Pre-norm blocks: x + attn(norm_1 x), then x + mlp(norm_2 x)."""
    blocks = f"modality_trunks.{modality}.blocks"
    for index in range(count_blocks(state, blocks)):
        prefix = f"{blocks}.{index}"
        normed = layer_norm(state, f"{prefix}.norm_1", x_LD, TRUNK_EPS)
        x_LD = x_LD + attention(state, f"{prefix}.attn", normed, heads, causal=causal)
        x_LD = x_LD + mlp(state, f"{prefix}.mlp", layer_norm(state, f"{prefix}.norm_2", x_LD, TRUNK_EPS))
    return x_LD


def attention(state: State, prefix: str, x_LD: Tensor, heads: int, *, causal: bool) -> Tensor:
    """Queries, keys, values from one stacked matrix; bias_k and bias_v, where they are, follow as one more token."""
    weight, bias = state[f"{prefix}.in_proj_weight"], state[f"{prefix}.in_proj_bias"]
    D = x_LD.shape[1]
    queries = x_LD @ weight[:D].T + bias[:D]
    keys = x_LD @ weight[D : 2 * D].T + bias[D : 2 * D]
    values = x_LD @ weight[2 * D :].T + bias[2 * D :]
    if f"{prefix}.bias_k" in state:
        keys = torch.cat([keys, state[f"{prefix}.bias_k"][0]])
        values = torch.cat([values, state[f"{prefix}.bias_v"][0]])
    return linear(state, f"{prefix}.out_proj", attend(queries, keys, values, heads, causal=causal))


def point_block(state: State, prefix: str, x_LD: Tensor, heads: int) -> Tensor:
    """Pre-norm block whose queries, keys and values have no bias."""
    normed = layer_norm(state, f"{prefix}.norm1", x_LD, POINT_EPS)
    weight, D = state[f"{prefix}.attn.qkv.weight"], x_LD.shape[1]
    queries, keys, values = normed @ weight[:D].T, normed @ weight[D : 2 * D].T, normed @ weight[2 * D :].T
    x_LD = x_LD + linear(state, f"{prefix}.attn.proj", attend(queries, keys, values, heads, causal=False))
    return x_LD + mlp(state, f"{prefix}.mlp", layer_norm(state, f"{prefix}.norm2", x_LD, POINT_EPS))


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int, *, causal: bool) -> Tensor:
    """softmax(Q K^T / sqrt(d) + mask) V of each head, side by side [L, D]; the mask is -inf at keys that come later."""
    d = queries.shape[1] // heads
    outputs = []
    for index in range(heads):
        of_head = slice(index * d, (index + 1) * d)
        scores = queries[:, of_head] @ keys[:, of_head].T / math.sqrt(d)
        if causal:
            for position in range(len(queries)):
                scores[position, position + 1 :] = -math.inf
        outputs.append(torch.softmax(scores, dim=-1) @ values[:, of_head])
    return torch.cat(outputs, dim=-1)


def head(state: State, modality: str, norm: str, projection: str, x_D: Tensor) -> Tensor:
    """Unit vector [E] of W norm(x); the head has no bias."""
    prefix = f"modality_heads.{modality}"
    y_E = state[f"{prefix}.{projection}.weight"] @ layer_norm(state, f"{prefix}.{norm}", x_D, TRUNK_EPS)
    return y_E / torch.sqrt((y_E * y_E).sum())


def scaled(state: State, modality: str, unit_E: Tensor) -> Tensor:
    """unit * clip(exp(log_logit_scale), max=100)."""
    log_scale = state[f"modality_postprocessors.{modality}.1.log_logit_scale"]
    return unit_E * min(math.exp(float(log_scale)), MAX_SCALE)


def farthest_points(xyz_N3: Tensor, groups: int) -> list[int]:
    """From point 0 on, always the point whose nearest chosen one is the farthest."""
    chosen = [0]
    while len(chosen) < groups:
        to_chosen = torch.stack([squared_distances(xyz_N3, xyz_N3[index]) for index in chosen])
        chosen.append(int(to_chosen.amin(dim=0).argmax()))
    return chosen


def nearest(xyz_N3: Tensor, centre_3: Tensor, neighbours: int) -> Tensor:
    """The points [K, 3] nearest to the centre, which is among them."""
    return xyz_N3[squared_distances(xyz_N3, centre_3).argsort()[:neighbours]]


def squared_distances(xyz_N3: Tensor, centre_3: Tensor) -> Tensor:
    return ((xyz_N3 - centre_3) ** 2).sum(dim=-1)


def group_feature(state: State, relative_K3: Tensor) -> Tensor:
    """Mini-PointNet of one group: two layers, [maximum, own] of each point, two layers, maximum."""
    prefix = "point_trunk.point_encoder.encoder"
    local = two_layers(state, f"{prefix}.first_conv", relative_K3)
    overall = local.amax(dim=0).expand_as(local)
    return two_layers(state, f"{prefix}.second_conv", torch.cat([overall, local], dim=-1)).amax(dim=0)


def two_layers(state: State, prefix: str, x: Tensor) -> Tensor:
    """W_3 relu(batch_norm(W_0 x)) with running statistics; a convolution of width 1 is a linear map."""
    x = x @ state[f"{prefix}.0.weight"][..., 0].T + state[f"{prefix}.0.bias"]
    deviation = torch.sqrt(state[f"{prefix}.1.running_var"] + BATCH_NORM_EPS)
    x = (x - state[f"{prefix}.1.running_mean"]) / deviation
    x = x * state[f"{prefix}.1.weight"] + state[f"{prefix}.1.bias"]
    return x.clamp(min=0) @ state[f"{prefix}.3.weight"][..., 0].T + state[f"{prefix}.3.bias"]


def mlp(state: State, prefix: str, x: Tensor) -> Tensor:
    return linear(state, f"{prefix}.fc2", gelu(linear(state, f"{prefix}.fc1", x)))


def linear(state: State, prefix: str, x: Tensor) -> Tensor:
    return x @ state[f"{prefix}.weight"].T + state[f"{prefix}.bias"]


def gelu(x: Tensor) -> Tensor:
    """x * Phi(x), with the exact distribution function of the normal."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(state: State, prefix: str, x: Tensor, eps: float) -> Tensor:
    """weight * (x - mean) / sqrt(var + eps) + bias, over the last dimension, with the biased variance."""
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = torch.sqrt((centred * centred).mean(dim=-1, keepdim=True) + eps)
    return state[f"{prefix}.weight"] * centred / deviation + state[f"{prefix}.bias"]


def count_blocks(state: State, prefix: str) -> int:
    """How many blocks `<prefix>.<i>.` the state holds."""
    return len({name[len(prefix) + 1 :].split(".")[0] for name in state if name.startswith(f"{prefix}.")})
