"""Small Hugging Face models with random weights, and what `transformers` computes with them.

Run with torch, transformers and safetensors. Each folder beside this file becomes a checkpoint as
`save_pretrained` writes it (config.json, model.safetensors) plus golden.safetensors:

- vision models: `rgb` u8 [image, height, width, 3] at the encoder's own size,
  `last_hidden_state` f32 [image, n_token, hidden_size];
- bert: tokenizer.json too; `ids` i32 [n_text], `last_hidden_state` f32 [n_text, hidden_size];
- mamba: `x` f32 [batch, seq_len, d_model], `last_hidden_state` of the first `n_prompt` elements run as a
  sequence and of the others run step by step from its states; `conv.<i>` [layer, d_inner, d_conv] and
  `ssm.<i>` [layer, d_inner, d_state] of batch element i after the sequence, `conv_end.<i>`, `ssm_end.<i>` after
  the last step; `loss` = sum(last_hidden_state * `loss_weight`) over the prompt and its gradients
  `grad.x`, `grad.<parameter>`, computed in f64.

Weights are drawn wide, biases and norms included, so that no operation can be left out unnoticed.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from safetensors.numpy import save_file
from tokenizers import BertWordPieceTokenizer

HERE = Path(__file__).parent
VISION = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
MLP = {"intermediate_size": 56}
N_PROMPT, N_STEP = 37, 5

# Mean and standard deviation as the published checkpoints of each kind have them.
HALF = ([0.5] * 3, [0.5] * 3)
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

VISION_MODELS = {
    "vit": (hf.ViTModel, hf.ViTConfig(**VISION, **MLP), HALF),
    "clip": (hf.CLIPVisionModel, hf.CLIPVisionConfig(**VISION, **MLP), CLIP),
    "siglip": (hf.SiglipVisionModel, hf.SiglipVisionConfig(**VISION, **MLP), HALF),
    "dinov2": (hf.Dinov2Model, hf.Dinov2Config(**VISION, mlp_ratio=2), IMAGENET),
}
MAMBA_MODELS = {
    "mamba": hf.MambaConfig(vocab_size=8, hidden_size=32, num_hidden_layers=3, state_size=16),
    # Sizes that no vector register divides.
    "mamba_odd": hf.MambaConfig(
        vocab_size=8, hidden_size=22, num_hidden_layers=2, state_size=5, conv_kernel=3, time_step_rank=3, expand=3
    ),
}


def randomise(model, generator):
    """Draws every parameter anew: matrices with the size that keeps activations of order one."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("A_log"):
            parameter.data = torch.log(torch.arange(1, parameter.shape[1] + 1)) + 0.2 * noise
        elif name.endswith("dt_proj.bias"):
            parameter.data = -2 + 1.5 * noise
        elif name.endswith(".D") or ("norm" in name.lower() and name.endswith("weight")) or "lambda" in name:
            parameter.data = 1 + 0.2 * noise
        elif parameter.dim() < 2 or "embed" in name or "token" in name:
            parameter.data = 0.3 * noise
        else:
            parameter.data = 1.2 * noise / parameter[0].numel() ** 0.5


def save(name, model, golden):
    folder = HERE / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_file({key: np.ascontiguousarray(value) for key, value in golden.items()}, folder / "golden.safetensors")


def make_vision(name, model_class, config, mean_std):
    generator = torch.Generator().manual_seed(1)
    model = model_class(config).eval()
    randomise(model, generator)
    rgb = torch.randint(0, 256, (2, 32, 32, 3), generator=generator, dtype=torch.uint8)
    mean, std = (torch.tensor(value) for value in mean_std)
    pixels = ((rgb.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        hidden = model(pixels).last_hidden_state
    save(name, model, {"rgb": rgb.numpy(), "last_hidden_state": hidden.numpy()})
    preprocessor = {"image_mean": mean_std[0], "image_std": mean_std[1], "rescale_factor": 1 / 255}
    (HERE / name / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")


def make_bert():
    generator = torch.Generator().manual_seed(2)
    config = hf.BertConfig(
        vocab_size=40, max_position_embeddings=24, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, **MLP
    )
    model = hf.BertModel(config).eval()
    randomise(model, generator)
    ids = torch.randint(0, 40, (1, 17), generator=generator)
    with torch.no_grad():
        hidden = model(input_ids=ids).last_hidden_state
    save("bert", model, {"ids": ids[0].int().numpy(), "last_hidden_state": hidden[0].numpy()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "##e", "##s", "the"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    BertWordPieceTokenizer(vocabulary).save(str(HERE / "bert" / "tokenizer.json"))


def states(cache):
    """Per batch element, the convolutions' and the scans' states of all layers."""
    conv = torch.stack([layer.conv_states[0] for layer in cache.layers], 1)
    ssm = torch.stack([layer.recurrent_states[0] for layer in cache.layers], 1)
    return conv.clone().numpy(), ssm.clone().numpy()


def make_mamba(name, config):
    generator = torch.Generator().manual_seed(3)
    model = hf.MambaForCausalLM(config).eval()
    randomise(model, generator)
    x = torch.randn(2, N_PROMPT + N_STEP, config.hidden_size, generator=generator)
    golden = {"x": x.numpy(), "n_prompt": np.array([N_PROMPT], np.int32)}
    with torch.no_grad():
        result = model.backbone(inputs_embeds=x[:, :N_PROMPT], use_cache=True)
        cache, hidden = result.cache_params, [result.last_hidden_state]
        record(golden, "", cache)
        for i in range(N_PROMPT, N_PROMPT + N_STEP):
            result = model.backbone(inputs_embeds=x[:, i : i + 1], cache_params=cache, use_cache=True)
            hidden.append(result.last_hidden_state)
        record(golden, "_end", cache)
    golden["last_hidden_state"] = torch.cat(hidden, 1).numpy()
    weight = torch.randn(2, N_PROMPT, config.hidden_size, generator=generator)
    golden["loss_weight"] = weight.numpy()
    golden.update(gradients(model, x[:, :N_PROMPT], weight))
    save(name, model, golden)


def record(golden, suffix, cache):
    conv, ssm = states(cache)
    for i in range(len(conv)):
        golden[f"conv{suffix}.{i}"], golden[f"ssm{suffix}.{i}"] = conv[i], ssm[i]


def gradients(model, x, weight):
    backbone = type(model)(model.config).backbone.double()
    backbone.load_state_dict(model.backbone.state_dict())
    x = x.double().requires_grad_()
    loss = (backbone(inputs_embeds=x, use_cache=False).last_hidden_state * weight.double()).sum()
    loss.backward()
    grads = {f"grad.{name}": p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    grads |= {"grad.x": x.grad, "loss": loss.detach().reshape(1)}
    return {name: value.float().numpy() for name, value in grads.items()}


def main():
    torch.set_num_threads(1)
    for name, (model_class, config, mean_std) in VISION_MODELS.items():
        make_vision(name, model_class, config, mean_std)
    make_bert()
    for name, config in MAMBA_MODELS.items():
        make_mamba(name, config)


if __name__ == "__main__":
    main()
