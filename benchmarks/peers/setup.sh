#!/usr/bin/env bash
# Installs the engines that `compare.py` compares with, beside this file: a Python environment in .venv, and llama.cpp, built
# for this processor, with two models of random weights in .llama; candle and mamba-rs in rust. Needs Python 3.11 with venv, a C++
# compiler, the Rust toolchain, and about 8 GB of disk. A second call does only what is missing.
set -euo pipefail
cd "$(dirname "$0")"

[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/pip install --quiet --requirement requirements.txt

mkdir -p .llama
[ -d .llama/source ] || .venv/bin/python fetch_llama.py .llama
[ -x .llama/llama-bench ] || {
    .venv/bin/cmake -S .llama/source/llama.cpp -B .llama/build -G Ninja -DCMAKE_MAKE_PROGRAM="$PWD/.venv/bin/ninja" \
        -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF
    .venv/bin/cmake --build .llama/build --target llama-bench llama-quantize
    cp .llama/build/bin/llama-bench .llama/build/bin/llama-quantize .llama/
}

[ -e .llama/transformer-f32.gguf ] || .venv/bin/python gguf_models.py .llama
for model in mamba transformer; do
    for format in BF16 Q8_0; do
        [ -e ".llama/$model-$format.gguf" ] || .llama/llama-quantize ".llama/$model-f32.gguf" ".llama/$model-$format.gguf" "$format"
    done
done

RUSTFLAGS="-C target-cpu=native" cargo build --release --quiet --manifest-path rust/Cargo.toml
