"""Images resized by Pillow, the reference of ImageTransform.

Run with Pillow and safetensors; writes resize.safetensors beside this file: for each case `i`
`input.i` u8 [height, width, 3] and `output.i` u8 [side, side, 3].
"""

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

# (height, width) of the camera, side of the encoder's input: both shrink, both grow, one of each, one axis only, odd, extreme.
CASES = [
    ((60, 80), 32),
    ((17, 23), 32),
    ((20, 64), 32),
    ((32, 45), 32),
    ((45, 32), 32),
    ((1, 1), 8),
    ((3, 200), 16),
    ((97, 89), 24),
]


def picture(rng, height, width):
    """Half noise, half edges: full-range values, so that rounding and clipping are met."""
    noise = rng.integers(0, 256, (height, width, 3))
    rows, columns = np.mgrid[:height, :width]
    board = np.stack([(rows // 3 + columns // 5) % 2 * 255, rows * 255 // height, columns * 255 // width], -1)
    return np.where(columns[..., None] < width // 2, noise, board).astype(np.uint8)


def main():
    rng = np.random.default_rng(0)
    tensors = {}
    for i, ((height, width), side) in enumerate(CASES):
        image = picture(rng, height, width)
        tensors[f"input.{i}"] = image
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
        tensors[f"output.{i}"] = np.ascontiguousarray(resized)
    save_file(tensors, Path(__file__).with_name("resize.safetensors"))


if __name__ == "__main__":
    main()
