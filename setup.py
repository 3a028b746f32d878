"""Packaging: each top-level folder is a package. A command runs as `python -m FOLDER.NAME` or by the console script."""

from setuptools import find_packages, setup

DEV = ["pycocotools>=2.0.7", "pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6", "ruff>=0.6", "mypy>=1.11"]

setup(
    name="model-compression",
    version="0.1.0",
    description="Make a convolutional network small and fast in stages: prune, quantize, merge, deploy",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["engine*", "models*", "quant*", "prune*", "bn_merge*", "deploy*", "scripts*"]),
    py_modules=["model_compression"],
    entry_points={"console_scripts": ["model-compression = model_compression:console"]},
    package_data={
        "scripts": ["*.sh"],
        "scripts.page": ["*.html"],
        "deploy.native": ["source/*.h", "source/*.cpp"],
        "models.fused": ["source/*.h", "source/*.cpp"],
    },
    install_requires=[
        "torch>=2.10",  # weights_only could be bypassed in older versions: CVE-2026-24747
        "torchvision>=0.25",
        "numpy>=1.26",
        "tqdm>=4.60",
        "scikit-learn>=1.3",
        "scipy>=1.10",
        "safetensors>=0.4.3",
    ],
    extras_require={
        "report": ["matplotlib>=3.8", "bokeh>=3.9"],  # earlier ones of Bokeh need pandas
        "timm": ["timm>=1.0"],
        "onnx": ["onnx>=1.16", "onnxruntime>=1.18"],
        "openvino": ["openvino>=2024.6"],
        "mnn": ["MNN>=3.0"],
        "detect": ["pycocotools>=2.0.7"],
        "dev": DEV,
    },
)
