import logging
import os
import subprocess
import sys

import pytest
import torch

from imgalign import environment
from imgalign.environment import (
    choose_device,
    choose_dtype,
    cpu_multiplies_bfloat16,
    most_memory,
    say_dtype,
    usable_cores,
)
from imgalign.errors import InputError

CPU = torch.device("cpu")

HASWELL = "fpu sse4_2 avx f16c fma avx2 bmi2"
ZEN_3 = f"{HASWELL} vaes"
SKYLAKE_X = f"{HASWELL} avx512f avx512dq avx512bw avx512vl"
ICE_LAKE = f"{SKYLAKE_X} avx512_vnni avx512_vbmi2"
COOPER_LAKE = f"{SKYLAKE_X} avx512_vnni avx512_bf16"
ZEN_4 = f"{ICE_LAKE} avx512_bf16"
SAPPHIRE_RAPIDS = f"{ZEN_4} avx512_fp16 amx_tile amx_bf16 amx_int8"
GRAVITON_2 = "fp asimd atomics fphp asimddp"
GRAVITON_3 = "fp asimd atomics fphp asimddp sve i8mm bf16"


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "", False),
        ("x86_64", HASWELL, False),
        ("x86_64", ZEN_3, False),
        ("x86_64", SKYLAKE_X, False),
        ("x86_64", ICE_LAKE, False),
        ("x86_64", COOPER_LAKE, True),
        ("x86_64", ZEN_4, True),
        ("x86_64", SAPPHIRE_RAPIDS, True),
        ("aarch64", GRAVITON_2, False),
        ("aarch64", GRAVITON_3, True),
        ("arm64", "", False),
    ],
)
def test_a_cpu_multiplies_bfloat16_by_the_flags_it_has(machine, flags, expected):
    assert cpu_multiplies_bfloat16(machine, flags.split(), {}) is expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, True),
        ({"ATEN_CPU_CAPABILITY": "avx512"}, True),
        ({"ATEN_CPU_CAPABILITY": "avx2"}, False),
        ({"ATEN_CPU_CAPABILITY": "default"}, False),
        ({"ONEDNN_MAX_CPU_ISA": "ALL"}, True),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, False),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, False),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, False),
        ({"ONEDNN_MAX_CPU_ISA": "avx512_core_bf16"}, True),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, True),
        ({"DNNL_MAX_CPU_ISA": "AVX2"}, False),
    ],
)
def test_limits_on_instructions_in_the_environment_count(variables, expected):
    assert cpu_multiplies_bfloat16("x86_64", SAPPHIRE_RAPIDS.split(), variables) is expected


def test_with_the_instructions_of_a_laptop_auto_is_float32_and_forced_bfloat16_warns():
    program = (
        "import logging, torch; logging.basicConfig(level=logging.INFO, format='%(message)s');"
        "from imgalign.environment import choose_dtype, say_dtype; cpu = torch.device('cpu');"
        "kept = [choose_dtype(name, cpu) for name in ('auto', 'bfloat16')];"
        "[say_dtype(dtype, cpu) for dtype in kept]; print(*kept)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "torch.float32 torch.bfloat16\n"
    said, warned = result.stderr.splitlines()
    assert said == "computing in float32: this CPU (AVX2) has no native bfloat16"
    factor = int(warned.partition("takes ")[2].partition(" times")[0])
    assert factor >= 2
    assert "only emulates" in warned


def test_what_is_computed_in_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(environment, "has_native_bfloat16", lambda device: True)
    assert choose_dtype("auto", CPU) == torch.bfloat16
    environment._say.cache_clear()
    with caplog.at_level(logging.INFO, logger="imgalign"):
        for dtype in (torch.bfloat16, torch.bfloat16, torch.float32):
            say_dtype(dtype, CPU)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "computing in bfloat16",
        "computing in float32, as asked for",
    ]


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_threads_are_as_many_as_the_container_owns(tmp_path, files, quota, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(environment, "_siblings", lambda cpu: f"{cpu % 32}")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert usable_cores(tmp_path) == (32 if quota is None else quota)


def test_threads_are_settled_before_torch_is_loaded_and_what_the_user_set_stays():
    program = (
        "import os, sys; from imgalign.environment import calm_threads; calm_threads();"
        "assert 'torch' not in sys.modules;"
        "print(os.environ['OMP_NUM_THREADS'], os.environ.get('GOMP_SPINCOUNT'))"
    )
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }

    def settled(**variables):
        return subprocess.run(
            [sys.executable, "-c", program],
            env=inherited | variables,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()

    assert settled() == [str(usable_cores()), environment.SPIN_COUNT]
    assert settled(OMP_NUM_THREADS="7", GOMP_SPINCOUNT="5") == ["7", "5"]
    assert settled(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="ACTIVE") == ["1", "None"]


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(InputError, match="device"):
        choose_device(name)


def test_auto_is_cuda_only_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto") == choose_device() == torch.device(expected)


def test_the_most_memory_is_that_of_the_process_and_not_of_the_one_that_started_it():
    """Linux hands ru_maxrss down to what a process starts."""
    large = b"x" * (400 * 2**20)
    code = "from imgalign.environment import most_memory; print(most_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < len(large) < most_memory()
