"""Times RoboMamba and other engines in turn on the same work and writes the medians of the ratios.

    cargo build --release --features train
    benchmarks/peers/setup.sh
    benchmarks/peers/.venv/bin/python benchmarks/peers/compare.py --json peers.json
    robomamba bench --peers peers.json --json benchmarks/results/MACHINE.json

In every round each engine does its work once, ours first and right after it those that it is compared with; a ratio is taken
within a round, and the median over the rounds is reported, so that a machine that slows down for a while slows down both.
An engine that cannot be loaded is left out, with the reason. `--only TEXT` measures a part, such as `--only OpenVINO`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engines import ENGINES, HERE

# Ours: the arguments of `robomamba bench` and where the JSON holds the milliseconds.
STEP = "--only steps --cameras 1 --steps 100"
HISTORY = "--only history --longest 10"
OURS = {
    "ours base int8": f"{STEP} --preset base --precision int8",
    "ours small int8": f"{STEP} --preset small --precision int8",
    "ours backbone f32": f"{HISTORY} --preset base --precision f32",
    "ours backbone bf16": f"{HISTORY} --preset base --precision bf16",
    "ours backbone int8": f"{HISTORY} --preset base --precision int8",
    "ours backbone f32, one thread": f"{HISTORY} --preset base --precision f32 --threads 1",
    "ours sequences": "--only sequences --longest 1000 --preset base --precision f32 --precision bf16",
    "ours training": "--only training",
}


def needs(*names):
    """Marks what measurements of ours, or which engines, a reader of times takes."""

    def mark(read):
        read.names = names
        return read

    return mark


def ours_step(preset, part=None):
    @needs(f"ours {preset} int8")
    def read(rounds):
        step = rounds[f"ours {preset} int8"]["step_ms"][preset]["int8"]
        return step["parts"][part] if part else step["p50"]

    return read


def ours_backbone(precision):
    @needs(f"ours backbone {precision}")
    def read(rounds):
        points = rounds[f"ours backbone {precision}"]["history"]
        return next(p["step_ms"] for p in points if p["backbone"] == "mamba" and p["history"] == 10)

    return read


def ours_sequence(tokens, precision="f32"):
    @needs("ours sequences")
    def read(rounds):
        points = rounds["ours sequences"]["sequences"]
        return next(p["ms"] for p in points if (p["backbone"], p["precision"], p["tokens"]) == ("mamba", precision, tokens))

    return read


def ours_training(per_parameter, precision="f32"):
    @needs("ours training")
    def read(rounds):
        measured = rounds["ours training"]["training"]
        if not measured:
            sys.exit("our training was not measured: build with `cargo build --release --features train`")
        mamba = next(m for m in measured if "Mamba" in m["work"] and m["precision"] == precision)
        return mamba["ms"] / (mamba["parameters_m"] if per_parameter else 1)

    return read


def peer(*names, scale=1.0):
    """The sum of the times of engines that work one after the other."""

    @needs(*names)
    def read(rounds):
        return sum(rounds[name] for name in names) * scale

    return read


# Name, work, ours, peer, and the ratio that is aimed at. The parameters of NeoX's four blocks: 28.4 M.
COMPARISONS = [
    ("OpenVINO int8 + llama.cpp Q8_0", "`base`, a control step", ours_step("base"), peer("openvino vit-base int8", "llama.cpp mamba-step q8"), 1.3),
    ("OpenVINO int8 + transformers f32", "`base`, a control step", ours_step("base"), peer("openvino vit-base int8", "transformers mamba-step f32"), 1.6),
    ("OpenVINO int8", "ViT-B/16 at 224 px", ours_step("base", "vision"), peer("openvino vit-base int8"), 1.15),
    ("ONNX Runtime int8", "ViT-B/16 at 224 px", ours_step("base", "vision"), peer("onnxruntime vit-base int8"), None),
    ("PyTorch bf16", "ViT-B/16 at 224 px", ours_step("base", "vision"), peer("torch vit-base bf16"), None),
    ("PyTorch f32", "ViT-B/16 at 224 px", ours_step("base", "vision"), peer("torch vit-base f32"), None),
    ("OpenVINO int8", "ViT-S/16 at 224 px", ours_step("small", "vision"), peer("openvino vit-small int8"), 1.15),
    ("ONNX Runtime int8", "ViT-S/16 at 224 px", ours_step("small", "vision"), peer("onnxruntime vit-small int8"), None),
    ("PyTorch bf16", "ViT-S/16 at 224 px", ours_step("small", "vision"), peer("torch vit-small bf16"), None),
    ("llama.cpp Q8_0", "24 Mamba blocks, a step, int8", ours_backbone("int8"), peer("llama.cpp mamba-step q8"), 2.0),
    ("OpenVINO int8", "24 Mamba blocks, a step, int8", ours_backbone("int8"), peer("openvino mamba-step int8"), 1.6),
    ("llama.cpp BF16", "24 Mamba blocks, a step, bf16", ours_backbone("bf16"), peer("llama.cpp mamba-step bf16"), 1.5),
    ("llama.cpp f32", "24 Mamba blocks, a step, f32", ours_backbone("f32"), peer("llama.cpp mamba-step f32"), None),
    ("transformers f32", "24 Mamba blocks, a step, f32", ours_backbone("f32"), peer("transformers mamba-step f32"), 3.0),
    ("candle f32", "24 Mamba blocks, a step, f32", ours_backbone("f32"), peer("candle mamba-step f32"), None),
    ("mamba-rs f32", "24 Mamba blocks, a step, f32, one thread", ours_backbone("f32, one thread"), peer("mamba-rs mamba-step f32"), 1.5),
    ("llama.cpp Q8_0, a Transformer", "a step after 10,000", ours_backbone("int8"), peer("llama.cpp transformer-step-10000 q8"), 8.0),
    ("transformers Mamba", "512 tokens at once, f32", ours_sequence(512), peer("transformers mamba-512 f32"), 10.0),
    ("transformers Mamba", "1,000 tokens at once, f32", ours_sequence(1000), peer("transformers mamba-1000 f32"), 10.0),
    ("llama.cpp Mamba", "512 tokens at once, f32", ours_sequence(512), peer("llama.cpp mamba-512 f32"), 3.0),
    ("transformers GPT-NeoX", "512 tokens at once, f32", ours_sequence(512), peer("transformers neox-512 f32"), 1.0),
    ("transformers GPT-NeoX", "1,000 tokens at once, f32", ours_sequence(1000), peer("transformers neox-1000 f32"), 1.0),
    ("llama.cpp Transformer", "512 tokens at once, f32", ours_sequence(512), peer("llama.cpp transformer-512 f32"), 1.0),
    ("transformers GPT-NeoX", "512 tokens at once, bf16", ours_sequence(512, "bf16"), peer("transformers neox-512 bf16"), None),
    ("transformers Mamba", "512 tokens at once, bf16", ours_sequence(512, "bf16"), peer("transformers mamba-512 bf16"), None),
    ("transformers Mamba", "an optimiser step of 4 blocks", ours_training(False), peer("transformers mamba-train f32"), 8.0),
    ("transformers GPT-NeoX", "the same, per million parameters", ours_training(True), peer("transformers neox-train f32", scale=1 / 28.4), 1.0),
    ("transformers Mamba", "an optimiser step of 4 blocks, bf16", ours_training(False, "bf16"), peer("transformers mamba-train bf16"), None),
    ("transformers GPT-NeoX", "the same, per million parameters, bf16", ours_training(True, "bf16"), peer("transformers neox-train bf16", scale=1 / 28.4), None),
]


class Worker:
    """An engine in a process of its own, which works only when told to."""

    def __init__(self, name, threads):
        command = [sys.executable, str(HERE / "engines.py"), name, str(threads)]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise RuntimeError((self.errors.read().strip().splitlines() or ["it ended without a word"])[-1])
        return line

    def measure(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.answer())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure_ours(robomamba, arguments, threads):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.json"
        if "--threads" not in arguments:
            arguments += f" --threads {threads}"
        command = [robomamba, "bench", *arguments.split(), "--json", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(path.read_text())


def load(names, threads):
    workers, missing = {}, {}
    for name in names:
        try:
            workers[name] = Worker(name, threads)
            print(f"loaded {name}", file=sys.stderr)
        except (RuntimeError, OSError) as error:
            missing[name] = str(error)
            print(f"left out {name}: {error}", file=sys.stderr)
    return workers, missing


def peers_of(name, comparisons):
    """The engines that a measurement of ours is compared with."""
    return [peer_name for _, _, ours, theirs, _ in comparisons if name in ours.names for peer_name in theirs.names]


def summary(comparison, rounds):
    name, work, ours, theirs, goal = comparison
    pairs = [(ours(times), theirs(times)) for times in rounds]
    result = {
        "name": name,
        "work": work,
        "ours_ms": round(statistics.median(a for a, _ in pairs), 4),
        "peer_ms": round(statistics.median(b for _, b in pairs), 4),
        "ratio": round(statistics.median(b / a for a, b in pairs), 3),
        "ratios": [round(b / a, 3) for a, b in pairs],
        "rounds": len(pairs),
    }
    return result if goal is None else {**result, "goal": goal}


def versions():
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "openvino", "nncf", "onnxruntime", "timm")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 101), metavar="N")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--robomamba", default=str(HERE.parent.parent / "target/release/robomamba"))
    parser.add_argument("--only", default="", metavar="TEXT", help="only comparisons with TEXT in their name or work, such as OpenVINO or ViT")
    parser.add_argument("--json", required=True, help="file to write")
    args = parser.parse_args()

    wanted = [c for c in COMPARISONS if args.only.lower() in f"{c[0]}, {c[1]}".lower()]
    if not wanted:
        sys.exit(f"no comparison has `{args.only}` in its name or work: {', '.join(sorted({c[0] for c in COMPARISONS}))}")
    needed = [name for name in ENGINES if any(name in theirs.names for _, _, _, theirs, _ in wanted)]
    workers, missing = load(needed, args.threads)
    comparisons = [c for c in wanted if all(name in workers for name in c[3].names)]
    if not comparisons:
        sys.exit("no engine of these comparisons could be loaded; `setup.sh` installs them")
    ours = {name: arguments for name, arguments in OURS.items() if any(name in c[2].names for c in comparisons)}
    rounds, start = [], time.monotonic()
    for index in range(args.rounds):
        times = {}
        for name, arguments in ours.items():
            print(f"measuring {name}", file=sys.stderr)
            times[name] = measure_ours(args.robomamba, arguments, args.threads)
            # What it is compared with comes right after it, while the machine is as it was.
            for peer_name in peers_of(name, comparisons):
                if peer_name not in times:
                    times[peer_name] = workers[peer_name].measure()
                    print(f"measured {peer_name}: {times[peer_name]:.2f} ms", file=sys.stderr)
        rounds.append(times)
        left = (time.monotonic() - start) / (index + 1) * (args.rounds - index - 1)
        print(f"round {index + 1} of {args.rounds}, {left:.0f} s left", file=sys.stderr)
        # After every round, so that an interruption loses one round at most.
        results = {
            "threads": args.threads,
            "machine": rounds[0][next(iter(ours))]["machine"],
            "versions": versions(),
            "missing": missing,
            "peers": [summary(comparison, rounds) for comparison in comparisons],
        }
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n")
    for worker in workers.values():
        worker.close()
    for result in results["peers"]:
        print(f"{result['ratio']:7.2f}  {result['ours_ms']:10.3f} ms  {result['peer_ms']:10.3f} ms  {result['name']}, {result['work']}")


if __name__ == "__main__":
    main()
