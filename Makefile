# make demo and make test work on a machine with Python 3.11 and pip; the rest is set up in .venv.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup constraints demo evidence evidence-arm evidence-memory bench bench-arm verdict-100k test fuzz test-arm arm-setup test-android android-setup test-browser browser-setup screenshots soak docs lint format clean

help: ## show these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv and install everything, in the versions of constraints.txt (again only when they changed)

# Debian ships ensurepip apart (python3-venv). Without it, the system's pip fills a venv made without pip.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found. Name one: make setup PYTHON=python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install pip; } || { rm -rf $(VENV); exit 1; }

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[all,dev]'
	@touch $@

# Without the constraints, so that a version changed in pyproject.toml can be installed; what still fits stays.
constraints: | $(BIN)/python ## write constraints.txt from .venv, after a change of pyproject.toml; run the tests then
	$(BIN)/python -m pip install --progress-bar off -e '.[all,dev,bench,fuzz]'
	$(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip > constraints.txt.tmp
	sed -e '1i # Versions that work together, of all, dev, bench and fuzz; written by: make constraints' -e 's/+.*//' constraints.txt.tmp > constraints.txt
	rm constraints.txt.tmp

demo: setup ## quantize the bundled demo checkpoint into four INT8 files and check each one
	$(BIN)/python -m segformer_edge.quantize --out out/demo --force

evidence: setup ## the same on your checkpoint: WEIGHTS=DIR DATA=camvid:DIR:val CALIBRATION=DIR [SIZE=384x512]
	$(BIN)/python benchmarks/evidence.py --weights "$(WEIGHTS)" --data "$(DATA)" --calibration "$(CALIBRATION)" --size "$(or $(SIZE),384x512)"

# One thread a process: two processes with two threads each wait for one another on two cores.
test: setup ## run the tests, JOBS (2) processes at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(or $(JOBS),2) --dist loadfile

# The fuzzer, which only `make fuzz` needs.
$(VENV)/.fuzz: $(STAMP)
	$(BIN)/python -m pip install --progress-bar off -e '.[fuzz]'
	@touch $@

fuzz: $(VENV)/.fuzz ## readers with made-up input for SECONDS (600), 200 damaged files a format, 50 killed runs
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) --work out/fuzz

browser-setup: setup ## install Chromium and its driver by apt, where they are missing
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	  [ "$$(id -u)" = 0 ] || { echo "Chromium is missing. Run: sudo apt-get install chromium chromium-driver" >&2; exit 2; }; \
	  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium chromium-driver fonts-dejavu-core; }

test-browser: browser-setup ## drive the camera page and the report in a headless Chromium
	$(BIN)/python -m pytest -m browser tests/camera tests/report

screenshots: browser-setup ## make the pictures in docs/images again, after make demo: [MODEL=out/demo/model.tflite REPORT=out/demo]
	MODEL="$(abspath $(or $(MODEL),out/demo/model.tflite))" REPORT="$(abspath $(or $(REPORT),out/demo))" \
	  $(BIN)/python -m pytest -m browser tests/camera tests/report -k screenshots --screenshots docs/images

soak: setup ## 10,000 frames of a looping clip through the camera program, growth and open files checked: [MODEL=FILE]
	$(BIN)/python benchmarks/soak.py $(or $(MODEL),out/demo/model.tflite)

arm-setup: setup ## build the emulated ARM CPUs in the user's cache folder: a minute, needs the network once, no root
	$(BIN)/python -m segformer_edge.emulation prepare

test-arm: arm-setup ## run the tests on emulated ARM CPUs, 32-bit ones too
	$(BIN)/python -m segformer_edge.emulation prepare armv7
	$(BIN)/python -m segformer_edge.emulation prepare aarch64 --with executorch
	$(BIN)/python -m pytest -m arm tests/arm

# What the app is compiled against: API level 23 or later, from an Android SDK or beside the checkout.
ANDROID_JAR ?= ../shared/android/android-23.jar

android-setup: setup ## fetch the Android tools into the user's cache folder: half a minute, 250 MB, no root
	ANDROID_JAR="$(ANDROID_JAR)" PYTHONPATH=tests/android $(BIN)/python -m androidkit.toolchain

test-android: android-setup ## build the Android app without Gradle and test it on a JVM: [ANDROID_JAR=FILE]
	ANDROID_JAR="$(ANDROID_JAR)" $(BIN)/python -m pytest -m android tests/android

evidence-arm: ON ?= cortex-a72,cortex-a76
evidence-arm: arm-setup ## INT8 files on emulated ARM: FILES="a.tflite b.onnx" DATA=camvid:DIR:val [WEIGHTS=DIR] [ON=cortex-a72]
	$(BIN)/python benchmarks/arm_agreement.py $(FILES) --data "$(DATA)" --on "$(ON)" $(if $(WEIGHTS),--weights "$(WEIGHTS)")

# The exporters that only the default pipelines need.
$(VENV)/.bench: $(STAMP)
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[bench]'
	@touch $@

evidence-memory: $(VENV)/.bench ## peak memory, default pipelines against ours, into docs/: CAMVID=DIR CALIBRATION=DIR [ON=cortex-a72]
	$(BIN)/python benchmarks/memory.py $(if $(CAMVID),--camvid "$(CAMVID)") $(if $(CALIBRATION),--calibration "$(CALIBRATION)") $(if $(ON),--on "$(ON)")

verdict-100k: setup ## SegFormer-B0 in 100,000 bytes of activations, executed by TFLite Micro, into docs/: [CAMVID=DIR CALIBRATION=DIR EVAL=camvid:DIR:val]
	$(BIN)/python benchmarks/verdict_100k.py $(if $(CAMVID),--camvid "$(CAMVID)") $(if $(CALIBRATION),--calibration "$(CALIBRATION)") $(if $(EVAL),--eval "$(EVAL)")

bench: $(VENV)/.bench ## speed, default pipelines against ours, into docs/: CAMVID=DIR CALIBRATION=DIR EVAL=camvid:DIR:val
	$(BIN)/python benchmarks/speed.py $(if $(CAMVID),--camvid "$(CAMVID)") $(if $(CALIBRATION),--calibration "$(CALIBRATION)") $(if $(EVAL),--eval "$(EVAL)")

bench-arm: $(VENV)/.bench arm-setup ## instructions per inference on emulated ARM, held to the recorded ones within 2 %: [UPDATE=1 records them]
	$(BIN)/python benchmarks/arm_instructions.py $(if $(UPDATE),--update) $(if $(ON),--on "$(ON)")

docs: setup ## build the documentation into out/docs, without the network; a warning fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, caches and out/
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find segformer_edge quantization tests -name __pycache__ -type d -prune -exec rm -rf {} +
