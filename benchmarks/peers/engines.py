"""The other engines: each class does one piece of work over and over, with random weights of our sizes.

`python engines.py NAME THREADS` loads the engine called NAME, answers `ready`, and then, for every line that it reads,
does its work `REPEATS` times (or for `BUDGET_S` seconds) and answers with the median in milliseconds. That way engines
take turns without being loaded anew, and none runs while another is timed.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE / ".models"
REPEATS, BUDGET_S, WARM_UP = 60, 3.0, 3
D_MODEL, N_LAYER, D_STATE, D_CONV, EXPAND = 768, 24, 16, 4, 2
VIT = {"base": "vit_base_patch16_224", "small": "vit_small_patch16_224"}
ENGINES = {}


def engine(name, *args):
    """Registers a class under `name`, to be made with `args` and the number of threads."""

    def register(cls):
        ENGINES[name] = (cls, args)
        return cls

    return register


def torch_with(threads):
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return torch


def vit(size):
    import timm

    return timm.create_model(VIT[size], num_classes=0).eval()


def onnx_of(name, make, inputs, names):
    """The path of `make()` as ONNX, exported once."""
    import torch

    path = MODELS / f"{name}.onnx"
    if not path.exists():
        MODELS.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.onnx.export(make(), inputs, str(partial), opset_version=17, dynamo=False, input_names=names[0], output_names=names[1])
        partial.rename(path)
    return path


@engine("torch vit-base f32", "base", "float32")
@engine("torch vit-base bf16", "base", "bfloat16")
@engine("torch vit-small bf16", "small", "bfloat16")
class TorchVit:
    """PyTorch's eager ViT of timm."""

    def __init__(self, size, dtype, threads):
        self.torch = torch = torch_with(threads)
        self.model = vit(size).to(getattr(torch, dtype))
        self.image = torch.rand(1, 3, 224, 224, dtype=getattr(torch, dtype))

    def run(self):
        with self.torch.inference_mode():
            self.model(self.image)


@engine("openvino vit-base int8", "base")
@engine("openvino vit-small int8", "small")
class OpenVinoVit:
    """OpenVINO after post-training quantisation by NNCF, with activations in 8 bits."""

    def __init__(self, size, threads):
        import numpy as np
        import openvino

        torch = torch_with(threads)
        core = openvino.Core()
        quantised = MODELS / f"vit-{size}-int8.xml"
        if not quantised.exists():
            import nncf

            path = onnx_of(f"vit-{size}", lambda: vit(size), (torch.rand(1, 3, 224, 224),), (["x"], ["y"]))
            pictures = [np.random.rand(1, 3, 224, 224).astype("f") for _ in range(8)]
            model = nncf.quantize(
                core.read_model(path),
                nncf.Dataset(pictures),
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(pictures),
            )
            openvino.save_model(model, quantised)
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self.request = core.compile_model(core.read_model(quantised), "CPU", options).create_infer_request()
        self.image = openvino.Tensor(np.random.rand(1, 3, 224, 224).astype("f"))

    def run(self):
        self.request.infer([self.image])


def onnx_session(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@engine("onnxruntime vit-base int8", "base")
@engine("onnxruntime vit-small int8", "small")
class OnnxVit:
    """ONNX Runtime with weights in 8 bits per channel and activations quantised as they come."""

    def __init__(self, size, threads):
        import numpy as np
        from onnxruntime.quantization import QuantType, quantize_dynamic

        torch = torch_with(threads)
        quantised = MODELS / f"vit-{size}-dynamic.onnx"
        if not quantised.exists():
            path = onnx_of(f"vit-{size}", lambda: vit(size), (torch.rand(1, 3, 224, 224),), (["x"], ["y"]))
            quantize_dynamic(path, quantised, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8, per_channel=True)
        self.session = onnx_session(quantised, threads)
        self.image = {"x": np.random.rand(1, 3, 224, 224).astype("f")}

    def run(self):
        self.session.run(None, self.image)


def mamba_step():
    """One step of the 24 blocks as a module `(x, h, c) -> (y, h, c)`, for export."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    d_inner, dt_rank = EXPAND * D_MODEL, D_MODEL // 16

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.Parameter(torch.ones(D_MODEL))
            self.in_proj = nn.Linear(D_MODEL, 2 * d_inner, bias=False)
            self.conv_weight = nn.Parameter(torch.randn(d_inner, D_CONV) * 0.3)
            self.conv_bias = nn.Parameter(torch.zeros(d_inner))
            self.x_proj = nn.Linear(d_inner, dt_rank + 2 * D_STATE, bias=False)
            self.dt_proj = nn.Linear(dt_rank, d_inner)
            self.a = nn.Parameter(-torch.arange(1, D_STATE + 1).float().repeat(d_inner, 1))
            self.d = nn.Parameter(torch.ones(d_inner))
            self.out_proj = nn.Linear(d_inner, D_MODEL, bias=False)

        def forward(self, x, h, c):
            normed = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * self.norm
            u, z = self.in_proj(normed).chunk(2, -1)
            taps = torch.cat([c, u.reshape(d_inner, 1)], 1)
            u = F.silu((taps * self.conv_weight).sum(1) + self.conv_bias).reshape(1, d_inner)
            dt, b, c_out = self.x_proj(u).split([dt_rank, D_STATE, D_STATE], -1)
            dt = F.softplus(self.dt_proj(dt)).reshape(d_inner, 1)
            h = torch.exp(dt * self.a) * h + (dt * u.reshape(d_inner, 1)) * b
            y = (h * c_out).sum(1) + u[0] * self.d
            return x + self.out_proj((y * F.silu(z[0])).reshape(1, d_inner)), h, taps[:, 1:]

    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(N_LAYER))

        def forward(self, x, h, c):
            states, windows = [], []
            for i, block in enumerate(self.blocks):
                x, state, window = block(x, h[i], c[i])
                states.append(state)
                windows.append(window)
            return x, torch.stack(states), torch.stack(windows)

    return Backbone().eval()


@engine("openvino mamba-step int8")
class OpenVinoMamba:
    """OpenVINO with weights in 8 bits and activations quantised in groups as they come."""

    def __init__(self, threads):
        import nncf
        import openvino

        torch = torch_with(threads)
        d_inner = EXPAND * D_MODEL
        inputs = (torch.randn(1, D_MODEL), torch.zeros(N_LAYER, d_inner, D_STATE), torch.zeros(N_LAYER, d_inner, D_CONV - 1))
        path = onnx_of("mamba-step", mamba_step, inputs, (["x", "h", "c"], ["y", "h_out", "c_out"]))
        core = openvino.Core()
        model = nncf.compress_weights(core.read_model(path), mode=nncf.CompressWeightsMode.INT8_SYM)
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "64",
        }
        self.request = core.compile_model(model, "CPU", options).create_infer_request()
        self.inputs = [tensor.numpy() for tensor in inputs]

    def run(self):
        out = self.request.infer(self.inputs, share_inputs=True, share_outputs=False)
        self.inputs[1:] = out[1], out[2]


def transformers_mamba(n_layer):
    from transformers import MambaConfig, MambaModel

    return MambaModel(
        MambaConfig(vocab_size=256, hidden_size=D_MODEL, num_hidden_layers=n_layer, state_size=D_STATE, expand=EXPAND, conv_kernel=D_CONV)
    )


def transformers_neox(n_layer):
    from transformers import GPTNeoXConfig, GPTNeoXModel

    config = GPTNeoXConfig(
        vocab_size=256,
        hidden_size=D_MODEL,
        num_hidden_layers=n_layer,
        num_attention_heads=12,
        intermediate_size=4 * D_MODEL,
        max_position_embeddings=16384,
    )
    config._attn_implementation = "sdpa"
    return GPTNeoXModel(config)


@engine("transformers mamba-step f32")
class TransformersMambaStep:
    """transformers' Mamba with its cache, a token at a time."""

    def __init__(self, threads):
        self.torch = torch = torch_with(threads)
        self.model = transformers_mamba(N_LAYER).eval()
        self.token = torch.randn(1, 1, D_MODEL)
        with torch.inference_mode():
            self.cache = self.model(inputs_embeds=torch.randn(1, 16, D_MODEL), use_cache=True).cache_params

    def run(self):
        with self.torch.inference_mode():
            self.cache = self.model(inputs_embeds=self.token, cache_params=self.cache, use_cache=True).cache_params


@engine("transformers mamba-512 f32", "mamba", 512, "float32")
@engine("transformers mamba-1000 f32", "mamba", 1000, "float32")
@engine("transformers mamba-512 bf16", "mamba", 512, "bfloat16")
@engine("transformers neox-512 f32", "neox", 512, "float32")
@engine("transformers neox-1000 f32", "neox", 1000, "float32")
@engine("transformers neox-512 bf16", "neox", 512, "bfloat16")
class TransformersSequence:
    """A whole sequence through transformers' Mamba or GPT-NeoX (12 blocks)."""

    def __init__(self, model, tokens, dtype, threads):
        self.torch = torch = torch_with(threads)
        dtype = getattr(torch, dtype)
        self.model = (transformers_mamba(N_LAYER) if model == "mamba" else transformers_neox(12)).eval().to(dtype)
        self.tokens = torch.randn(1, tokens, D_MODEL, dtype=dtype)

    def run(self):
        with self.torch.inference_mode():
            self.model(inputs_embeds=self.tokens, use_cache=False)


@engine("transformers mamba-train f32", "mamba", False)
@engine("transformers mamba-train bf16", "mamba", True)
@engine("transformers neox-train f32", "neox", False)
@engine("transformers neox-train bf16", "neox", True)
class TransformersTraining:
    """An optimiser step of four blocks on 4 sequences of 64, in f32 or with products in bf16 (autocast)."""

    def __init__(self, model, autocast, threads):
        self.autocast = autocast
        self.torch = torch = torch_with(threads)
        self.model = transformers_mamba(4) if model == "mamba" else transformers_neox(4)
        self.optimiser = torch.optim.AdamW(self.model.parameters())
        self.tokens = torch.randn(4, 64, D_MODEL)

    def run(self):
        self.optimiser.zero_grad()
        with self.torch.autocast("cpu", dtype=self.torch.bfloat16, enabled=self.autocast):
            loss = self.model(inputs_embeds=self.tokens, use_cache=False).last_hidden_state.float().square().mean()
        loss.backward()
        self.optimiser.step()


@engine("llama.cpp mamba-step f32", "mamba-f32", 0)
@engine("llama.cpp mamba-step bf16", "mamba-BF16", 0)
@engine("llama.cpp mamba-step q8", "mamba-Q8_0", 0)
@engine("llama.cpp transformer-step-10000 q8", "transformer-Q8_0", 10_000)
@engine("llama.cpp mamba-512 f32", "mamba-f32", None)
@engine("llama.cpp transformer-512 f32", "transformer-f32", None)
class LlamaCpp:
    """`llama-bench`: a step after a history of `depth`, or 512 tokens at once."""

    def __init__(self, model, depth, threads):
        work = ["-p", "512", "-n", "0", "-r", "2"] if depth is None else ["-p", "0", "-n", "64" if depth == 0 else "16", "-d", str(depth), "-r", "2"]
        bench, path = HERE / ".llama" / "llama-bench", HERE / ".llama" / f"{model}.gguf"
        for needed in (bench, path):
            if not needed.exists():
                raise FileNotFoundError(f"{needed} is missing; run setup.sh")
        self.command = [str(bench), "-m", str(path), "-t", str(threads), *work, "-o", "jsonl"]

    def measure(self):
        done = subprocess.run(self.command, capture_output=True, text=True, check=True)
        result = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
        steps = result["n_gen"] or 1
        return statistics.median(result["samples_ns"]) / steps / 1e6


@engine("mamba-rs mamba-step f32", "mamba-rs")
@engine("candle mamba-step f32", "candle")
class Rust:
    """A backbone in Rust, which speaks the same way; see rust/src/main.rs. mamba-rs uses one thread, whatever it is told."""

    def __init__(self, name, threads):
        binary = HERE / "rust" / "target" / "release" / "rust-engines"
        if not binary.exists():
            raise FileNotFoundError(f"{binary} is missing; run setup.sh")
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen([str(binary), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.process.stdout.readline()

    def measure(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def measure(work):
    """The median time of a run in milliseconds."""
    if hasattr(work, "measure"):
        return work.measure()
    start = time.perf_counter()
    for _ in range(WARM_UP):
        work.run()
        if time.perf_counter() - start > BUDGET_S:
            break
    times, start = [], time.perf_counter()
    while len(times) < REPEATS and (not times or time.perf_counter() - start < BUDGET_S):
        before = time.perf_counter()
        work.run()
        times.append((time.perf_counter() - before) * 1e3)
    return statistics.median(times)


def main():
    name, threads = sys.argv[1], int(sys.argv[2])
    # Answers go where compare.py listens; what libraries print does not.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.filterwarnings("ignore")
    cls, args = ENGINES[name]
    work = cls(*args, threads)
    print("ready", file=answers)
    for _ in sys.stdin:
        print(measure(work), file=answers)


if __name__ == "__main__":
    main()
