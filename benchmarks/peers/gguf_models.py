"""Writes two models with random weights for llama.cpp: `gguf_models.py FOLDER`.

mamba-f32.gguf has the 24 blocks of `base`; transformer-f32.gguf is a Llama of 12 blocks with nearly as many
parameters (85 M against 91 M). A vocabulary of 256 keeps the language head out of the times.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

D_MODEL, VOCAB = 768, 256
RNG = np.random.default_rng(0)


def normal(*shape: int, scale: float = 0.02) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32) * scale


def ones(n: int) -> np.ndarray:
    return np.ones(n, dtype=np.float32)


def writer(path: Path, architecture: str, *, context: int, blocks: int, feed_forward: int, heads: int) -> gguf.GGUFWriter:
    out = gguf.GGUFWriter(path, architecture)
    out.add_name(f"{architecture}-random")
    out.add_context_length(context)
    out.add_embedding_length(D_MODEL)
    out.add_block_count(blocks)
    out.add_feed_forward_length(feed_forward)
    out.add_head_count(heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(VOCAB)
    out.add_tokenizer_model("no_vocab")
    out.add_file_type(0)
    out.add_tensor("token_embd.weight", normal(VOCAB, D_MODEL))
    out.add_tensor("output_norm.weight", ones(D_MODEL))
    return out


def finish(out: gguf.GGUFWriter) -> None:
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def mamba(path: Path, blocks: int = 24, d_state: int = 16, d_conv: int = 4) -> None:
    d_inner, dt_rank = 2 * D_MODEL, D_MODEL // 16
    out = writer(path, "mamba", context=1 << 20, blocks=blocks, feed_forward=0, heads=0)
    out.add_ssm_conv_kernel(d_conv)
    out.add_ssm_inner_size(d_inner)
    out.add_ssm_state_size(d_state)
    out.add_ssm_time_step_rank(dt_rank)
    out.add_ssm_dt_b_c_rms(False)
    for i in range(blocks):
        tensors = {
            "attn_norm.weight": ones(D_MODEL),
            "ssm_in.weight": normal(2 * d_inner, D_MODEL),
            "ssm_conv1d.weight": normal(d_inner, d_conv, scale=0.3),
            "ssm_conv1d.bias": normal(d_inner),
            "ssm_x.weight": normal(dt_rank + 2 * d_state, d_inner),
            "ssm_dt.weight": normal(d_inner, dt_rank),
            "ssm_dt.bias": normal(d_inner) - 4,
            "ssm_a": -np.tile(np.arange(1, d_state + 1, dtype=np.float32), (d_inner, 1)),
            "ssm_d": ones(d_inner),
            "ssm_out.weight": normal(D_MODEL, d_inner),
        }
        for name, tensor in tensors.items():
            out.add_tensor(f"blk.{i}.{name}", tensor)
    finish(out)


def transformer(path: Path, blocks: int = 12, feed_forward: int = 2048, heads: int = 12) -> None:
    out = writer(path, "llama", context=1 << 17, blocks=blocks, feed_forward=feed_forward, heads=heads)
    out.add_head_count_kv(heads)
    out.add_rope_dimension_count(D_MODEL // heads)
    for i in range(blocks):
        block = f"blk.{i}."
        out.add_tensor(block + "attn_norm.weight", ones(D_MODEL))
        out.add_tensor(block + "ffn_norm.weight", ones(D_MODEL))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            out.add_tensor(f"{block}{name}.weight", normal(D_MODEL, D_MODEL))
        out.add_tensor(block + "ffn_gate.weight", normal(feed_forward, D_MODEL))
        out.add_tensor(block + "ffn_up.weight", normal(feed_forward, D_MODEL))
        out.add_tensor(block + "ffn_down.weight", normal(D_MODEL, feed_forward))
    finish(out)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    mamba(folder / "mamba-f32.gguf")
    transformer(folder / "transformer-f32.gguf")
