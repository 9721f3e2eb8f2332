"""What the campaign can't do without, and which of it is not installed. Imports nothing of that."""

from __future__ import annotations

import importlib.util
import sys

NEEDED = (  # by the names that are imported
    *("numpy", "safetensors", "matplotlib", "PIL", "click", "tqdm", "threadpoolctl"),
    *("platformdirs", "torch", "torchvision", "pytest", "hypothesis", "expecttest", "cupy"),
)
PACKAGES = {"PIL": "pillow", "cupy": "cupy-cuda13x"}  # that are installed by another name
ADVICE = (
    "pip install '.[test,cuda13]', or cuda12; where there is no network, first pip download them "
    "elsewhere, and then pip install --no-index --find-links FOLDER"
)


def missing(cupy: bool) -> list[str]:
    """What is not installed, with CuPy or without it, by the names that pip knows."""
    return [
        PACKAGES.get(name, name)
        for name in NEEDED
        if importlib.util.find_spec(name) is None and (cupy or name != "cupy")
    ]


def tell_missing() -> None:
    """If anything is missing, say what, and how to come by it; and end with exit status 2."""
    packages = missing(cupy=not {"--rehearse", "--help"} & {*sys.argv})
    if packages:
        print(f"Error: {', '.join(packages)} not installed: {ADVICE}", file=sys.stderr)
        sys.exit(2)
