"""Golden values for tests/reader.rs, read with pyarrow, Pillow and PyAV (FFmpeg), none of which this crate uses.

    pip install pyarrow pillow numpy av && python make.py

fixture.json   every value of every frame of the `image` fixture, SHA-256 of every decoded image (RGB bytes),
               statistics of every episode in float64
video.png      frames of the `video` fixture as FFmpeg decodes and converts them (rgb24): one row per entry of VIDEO_FRAMES;
               columns: top by swscale, wrist by swscale, top and wrist by the formula of BT.601 in float64 with
               repeated chroma (swscale rounds chroma coarsely)
"""
import hashlib
import io
import json
import pathlib

import av
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE.parent / "fixtures" / "lerobot_v3"
CAMERAS = ["observation.images.top", "observation.images.wrist"]
VIDEO_FRAMES = [0, 1, 29, 30, 53, 69, 70, 119]


def decode(png):
    return np.asarray(Image.open(io.BytesIO(png["bytes"])).convert("RGB"))


def stats(values):
    values = np.asarray(values, np.float64)
    return {
        "min": values.min(0).tolist(),
        "max": values.max(0).tolist(),
        "mean": values.mean(0).tolist(),
        "std": values.std(0).tolist(),
    }


def episode(rows):
    out = {"columns": {}, "images": {}, "stats": {}}
    for name in rows[0]:
        if name in CAMERAS:
            images = np.stack([decode(row[name]) for row in rows])
            out["images"][name] = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
            out["stats"][name] = stats(images.reshape(-1, 3) / 255.0)
        else:
            values = [row[name] if isinstance(row[name], list) else [row[name]] for row in rows]
            out["columns"][name] = [float(value) for frame in values for value in frame]
            out["stats"][name] = stats(values)
    return out


def bt601(frame):
    """Limited-range BT.601 to RGB, chroma repeated."""
    height, width = frame.height, frame.width
    planes = frame.to_ndarray(format="yuv420p").astype(np.float64)
    y = (planes[:height] - 16) * 255 / 219
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    cb, cr = ((plane.repeat(2, 0).repeat(2, 1) - 128) * 255 / 224 for plane in chroma)
    red, blue = y + 1.402 * cr, y + 1.772 * cb
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.round(np.stack([red, green, blue], -1)), 0, 255).astype(np.uint8)


rows = pq.read_table(FIXTURES / "image/data/chunk-000/file-000.parquet").to_pylist()
tasks = pq.read_table(FIXTURES / "image/meta/tasks.parquet").to_pydict()
episodes = [episode([row for row in rows if row["episode_index"] == index]) for index in range(3)]
golden = {"tasks": dict(zip(tasks["task"], tasks["task_index"])), "episodes": episodes}
(HERE / "fixture.json").write_text(json.dumps(golden))

swscale, formula = [], []
for camera in CAMERAS:
    with av.open(str(FIXTURES / f"video/videos/{camera}/chunk-000/file-000.mp4")) as container:
        frames = list(container.decode(video=0))
    swscale.append(np.concatenate([frames[index].to_ndarray(format="rgb24") for index in VIDEO_FRAMES]))
    formula.append(np.concatenate([bt601(frames[index]) for index in VIDEO_FRAMES]))
Image.fromarray(np.concatenate(swscale + formula, 1)).save(HERE / "video.png")
