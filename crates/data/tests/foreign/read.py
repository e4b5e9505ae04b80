"""Reads a LeRobotDataset v3.0 the way LeRobot 0.6.1 does, and prints what it found as JSON.

    pip install datasets pillow pandas && python read.py DATASET

With LeRobot installed (`pip install 'lerobot[dataset]==0.6.1'`, Python >= 3.12) its own `LeRobotDataset` is used as well.
Without it, the same calls are made on the libraries below it: pandas for the instructions, Hugging Face `datasets` with
the feature types of `get_hf_features_from_features` for frames and episodes.
"""
import hashlib
import json
import pathlib
import sys

import datasets
import numpy as np
import pandas as pd


def hf_features(features):
    """lerobot/datasets/feature_utils.py, `get_hf_features_from_features`, for the shapes that occur here."""
    out = {}
    for key, feature in features.items():
        if feature["dtype"] == "image":
            out[key] = datasets.Image()
        elif feature["shape"] == [1]:
            out[key] = datasets.Value(dtype=feature["dtype"])
        else:
            out[key] = datasets.Sequence(length=feature["shape"][0], feature=datasets.Value(dtype=feature["dtype"]))
    return datasets.Features(out)


def parquet(folder, features=None):
    paths = sorted(str(path) for path in folder.glob("*/*.parquet"))
    return datasets.Dataset.from_parquet(paths, features=features, cache_dir=str(CACHE))


def frame(row, tasks, cameras):
    return {
        "task": tasks.iloc[row["task_index"]].name,
        "state": [float(value) for value in row["observation.state"]],
        "success": bool(row["next.success"]),
        "images": {key: hashlib.sha256(np.asarray(row[key].convert("RGB")).tobytes()).hexdigest() for key in cameras},
    }


root = pathlib.Path(sys.argv[1])
CACHE = pathlib.Path(sys.argv[2])
datasets.disable_progress_bars()
info = json.loads((root / "meta/info.json").read_text())
cameras = [key for key, feature in info["features"].items() if feature["dtype"] == "image"]
tasks = pd.read_parquet(root / "meta/tasks.parquet")
tasks.index.name = "task"
episodes = parquet(root / "meta/episodes")
frames = parquet(root / "data", hf_features(info["features"]))
stats = json.loads((root / "meta/stats.json").read_text())
found = {
    "episodes": len(episodes),
    "frames": len(frames),
    "tasks": {task: int(row.task_index) for task, row in tasks.iterrows()},
    "lengths": episodes["length"][:],
    "shapes": {key: list(np.shape(value)) for key, value in frames[0].items()},
    "stats_shapes": {key: list(np.shape(value["mean"])) for key, value in stats.items()},
    "episode_stats_shapes": {
        key.split("/")[1]: list(np.shape(value)) for key, value in episodes[0].items() if key.endswith("/mean")
    },
    "first_and_last": [
        frame(frames[index], tasks, cameras)
        for episode in episodes
        for index in (episode["dataset_from_index"], episode["dataset_to_index"] - 1)
    ],
}

try:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
except ImportError as why:
    found["lerobot"] = {"skipped": str(why)}
else:
    dataset = LeRobotDataset("recording/test", root=root)
    item = dataset[5]
    image = (item[cameras[0]].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    found["lerobot"] = {
        "episodes": dataset.num_episodes,
        "frames": len(dataset),
        "fps": dataset.fps,
        "task": item["task"],
        "timestamp": float(item["timestamp"]),
        "state": item["observation.state"].tolist(),
        "image": hashlib.sha256(image.tobytes()).hexdigest(),
        "stats": sorted(dataset.meta.stats),
    }
print(json.dumps(found))
