"""What differs between the documentation and its test: how runs are made small, and what is not run, and why."""

from __future__ import annotations

#: Arguments of a command -> those of the same run on the tiny checkpoint, some seconds long. In this order.
SMALLER = (
    ("--size 512", "--size 64"),
    ("--size 128", "--size 64"),
    ("--data demo", "--data folder:val/"),
    # Tensors of no variant need the config.json beside them.
    ("runs/my_b0_int8/model.safetensors", "runs/my_b0_int8"),
    # tests/conftest.py makes all four.
    ("--calibration images/ --eval folder:val/", "--calibration images/ --eval folder:val/ --targets tflite"),
    ("--out out/my_b0_int8", "--out out/my_b0_int8 --targets onnx"),
)
#: Command -> what is added: random weights lose more than the gate allows.
ADDED = {"quantize": "--max-drop 100"}
#: Where the documentation leaves the weights to the default, the demo checkpoint.
INSTEAD_OF_DEMO = "--weights runs/my_b0 --calibration images/"

#: The same for Python.
SMALLER_PYTHON = (
    ('weights="demo"', 'weights="runs/my_b0", calibration="images", eval="folder:val", max_drop=100.0'),
    ("size=128", "size=64"),
    ("size=512", "size=64"),
    ('data="demo"', 'data="folder:val"'),
)

#: Part of one of our commands -> why it is not run. Its options go through the command's own parser.
PARSED = {
    "train --qat --init runs/my_b0": "half a minute; tests/training/test_qat.py",
    "profile model.pte": "ten seconds; tests/memory/test_measure.py",
    "doctor": "loads every package of every target, half a minute; tests/doctor",
    "--source picamera": "a Raspberry Pi's camera; tests/camera/test_session.py has a stand-in",
    "emulation run": "an emulated CPU, which make arm-setup prepares; tests/arm/test_on_arm.py",
    "--on cortex-a72": "an emulated CPU; tests/arm/test_measure_on_arm.py",
    "camvid:": "CamVid is not part of the project; README.md has the same options on a folder, and they are run",
    "ade20k:": "ADE20K is not part of the project, and the training takes days; tests/training/test_loop.py",
    "ethos-u85-256": "a graph of B0 for an NPU takes minutes; tests/ethos_u/test_targets.py",
    "--memory-budget 100000": "tilings of the whole B0 take minutes; tests/export/test_tflm.py",
    "--memory-budget 1572864": "31,000 operators, five minutes; tests/export/test_planner.py -k anew",
    "out/model_tflm.tflite": "the file of the command before; docs/examples/microcontroller.md is run",
    "out/micro/model_tflm.tflite": "the file of the command before; docs/examples/microcontroller.md is run",
    "b0-ade20k": "fetched from the hub; tests/model/test_hub.py has folders laid out as the hub's",
    "nvidia/segformer": "fetched from the hub; tests/model/test_hub.py",
    "--weights b0 ": "the folder of the command before, fetched from the hub; tests/model/test_hub.py",
    "--android": "four targets; tests/export/test_android.py",
}

#: Page -> why its Python is compiled, not run.
COMPILED = {
    "docs/examples/ethos-u.md": "Vela takes half a minute a graph; tests/ethos_u/test_targets.py",
    "docs/examples/android.md": "ExecuTorch takes half a minute; tests/export/test_android.py, tests/test_quantize.py",
}

#: First word of other commands -> why they are not run.
ELSEWHERE = {
    "pip": "installs from the network",
    "~/segformer/bin/pip": "installs from the network",
    "linux32": "installs from the network",
    "python3": "makes the environment on a Raspberry Pi",
    "sudo": "needs root, on a Raspberry Pi",
    "journalctl": "a Raspberry Pi's service",
    "rpicam-hello": "a Raspberry Pi's camera",
    "ssh": "a Raspberry Pi",
    "hf": "fetches from the hub",
    "gradle": "needs an Android SDK; make test-android builds without one",
    "accelerate": "several processes, its options cut short; tests/training/test_loop.py",
}
