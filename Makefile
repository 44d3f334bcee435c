# Every target sets up what it needs (scripts/setup.sh: .venv, packages, native build) and says what is missing.
#   make run            the embedded model answers a question at three efforts
#   make serve          an API of the embedded model on 127.0.0.1:8000
#   make test           lint, types and every test; what CI runs
# PYTHON=... names the interpreter of a new .venv; PROMPT and EFFORT go to 'make run'.
.DEFAULT_GOAL := help
SHELL := /bin/bash
MOTET := .venv/bin/python -m motet
PY := .venv/bin/python
comma := ,
# Tests run side by side, one native thread each, so that two workers do not fight for two cores.
TEST_ENV := MOTET_THREADS=1 OMP_NUM_THREADS=1
# vLLM's environment has no native module of ours: the numpy kernels are enough to compare with.
VLLM_TEST := PYTHONPATH=src:tests MOTET_KERNELS=numpy VLLM_CPU_KVCACHE_SPACE=1 .venv-vllm/bin/python -m pytest -q -p no:cacheprovider --noconftest tests/test_vllm.py
NEON_CXX ?= aarch64-linux-gnu-g++
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n > 8 ? 8 : n )))

.PHONY: help setup setup-dev setup-train run chat demo-tools serve test test-avx512 test-neon lint types clients fuzz study bench oracle oracle-vllm train-mini clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup:
	@bash scripts/setup.sh run

setup-dev:
	@bash scripts/setup.sh dev

setup-train:
	@bash scripts/setup.sh train

run: setup ## the embedded model thinks and answers, at low, medium and high effort
	@$(MOTET) demo

chat: setup ## talk with the embedded model (or MODEL=folder)
	@$(MOTET) chat $(if $(MODEL),--model '$(MODEL)')

demo-tools: setup ## real tools: computes with python, plots, reads a folder and cites it (MODEL=folder for a model)
	@$(MOTET) demo-tools $(if $(MODEL),--model '$(MODEL)')

serve: setup ## an API of the embedded model (or MODEL=folder) on this machine, at PORT (8000)
	@$(MOTET) serve $(if $(MODEL),--model '$(MODEL)') $(if $(PORT),--port '$(PORT)')

test: setup-dev lint types ## lint, types and every test, on all cores
	@echo "tests: pytest with $(WORKERS) workers"
	@$(TEST_ENV) $(PY) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup-dev ## ruff: rules and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: setup-dev ## mypy --strict on src/motet
	@$(PY) -m mypy

clients: setup-dev ## the npm client, the Agents SDKs, LangChain and MCP servers of others (installs them apart: 600 MB)
	@bash scripts/clients.sh
	@MOTET_CLIENTS=all $(TEST_ENV) $(PY) -m pytest -q tests/test_clients.py tests/test_clients_mcp.py $(ARGS)

fuzz: setup-dev ## the fuzz tests at full length
	@MOTET_FUZZ=full $(TEST_ENV) $(PY) -m pytest -q -n $(WORKERS) -m fuzz $(ARGS)

test-avx512: setup-dev ## the AVX-512 kernels by emulation, for a CPU without them (needs SIMDe)
	@echo '#include <simde/x86/avx512.h>' | $(or $(CXX),c++) -x c++ -fsyntax-only - 2>/dev/null || \
	  { echo "SIMDe is missing; install it (Debian: apt-get install libsimde-dev)." >&2; exit 1; }
	@rm -f .venv/stamp-native-*
	@PATH="$$PWD/.venv/bin:$$PATH" $(PY) -m pip install -q --no-deps --no-build-isolation \
	  -C build-dir=build/emulated -C cmake.define.MOTET_EMULATE_AVX512=ON -e .
	@status=0; $(TEST_ENV) MOTET_ISA=avx512 $(PY) -m pytest -q tests/test_kernels.py tests/test_model.py || status=$$?; \
	  bash scripts/setup.sh dev && exit $$status

test-neon: setup-dev ## the NEON kernels against the scalar ones on an emulated aarch64, without and with sdot
	@for tool in $(NEON_CXX) qemu-aarch64; do command -v $$tool >/dev/null || \
	  { echo "$$tool is missing; install it (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)." >&2; exit 1; }; done
	@for arch in armv8-a armv8.2-a+dotprod; do echo "neon: -march=$$arch"; \
	  PATH="$$PWD/.venv/bin:$$PATH" cmake -S tests/native -B "build/neon-$$arch" -G Ninja -DCMAKE_SYSTEM_NAME=Linux \
	    -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(NEON_CXX) -DMOTET_ARCH=$$arch >/dev/null && \
	  PATH="$$PWD/.venv/bin:$$PATH" cmake --build "build/neon-$$arch" >/dev/null && \
	  qemu-aarch64 -cpu $$([ $$arch = armv8-a ] && echo cortex-a53 || echo max) "build/neon-$$arch/compare_targets" || exit 1; done

study: setup-dev ## every figure of docs/findings.md, on the embedded model (or MODEL=folder); reports in runs/study
	@$(PY) -m motet.study.findings $(if $(MODEL),--model '$(MODEL)') $(ARGS)

bench: setup ## speed of the embedded model (or MODEL=folder), ceilings first; ARGS=--json and others
	@$(MOTET) bench $(if $(MODEL),'$(MODEL)' --prompt 512$(comma)2048 --depth 0$(comma)4096 --batch 1$(comma)8,mini) $(ARGS)

oracle: setup-dev ## compare with transformers' GptOssForCausalLM, oss-harmony and, where it is installed, vLLM
	@$(PY) -m tests.oracle_transformers
	@MOTET_FUZZ=full $(TEST_ENV) $(PY) -m pytest -q -n $(WORKERS) tests/test_harmony_render.py tests/test_harmony_parse.py -k library
	@if [ -x .venv-vllm/bin/python ]; then $(VLLM_TEST); else \
	  echo "vLLM: skipped, it is not installed ('make oracle-vllm' does that: 4 GB)"; fi

oracle-vllm: setup-dev ## install vLLM for the CPU beside, and run engine/vllm.py on it
	@bash scripts/vllm.sh
	@$(VLLM_TEST)

train-mini: setup-train ## train the embedded model again, from its seed
	@$(PY) -m motet train all --recipe mini

clean: ## remove .venv and everything built
	@rm -rf .venv .venv-vllm .venv-clients tests/clients/node_modules build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis src/motet/_native*.so
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
