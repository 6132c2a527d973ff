"""Cluster files: what they describe, and what they say to mistakes."""

import pytest

from perfmodel.core.errors import DataError, UsageError
from perfmodel.scenario.deploy import plan
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.serving import Serving
from perfmodel.serving.simulate.fleet import Role, State

ASK = Scenario(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm", request_rate=1.0)
WHOLE = """
routing = "power-of-two"
decode_routing = "least-kv"

[[group]]
replicas = 2
spare = 1
role = "prefill"
scheduler = "sarathi"

[[group]]
gpu = "a100-sxm-80gb"
tensor_parallel_size = 2
role = "decode"
max_loras = 4

[link]
bandwidth = "50 GB/s"
latency = "20 us"

[migration]
interval = "1 s"
low = 10
high = 60

[scaler]
interval = "5 s"
low = 1
high = 8
initialise = "30 s"
weights = "nvme-gen4"

[[stage]]
name = "tokenise"
servers = 8
base = "1 ms"
per_token = "2 us"

[[change]]
time = "100 s"
replica = 0
state = "failed"

[failures]
mtbf = "1 h"
repair = "60 s"
until = "10 h"
"""


def made(tmp_path, text):
    path = tmp_path / "cluster.toml"
    path.write_text(text, encoding="utf-8")
    return plan(ASK, Serving(cluster=str(path)))


def test_everything_in_one_file(tmp_path):
    got = made(tmp_path, WHOLE)
    first, second = got.groups
    assert (first.replicas, first.spare, first.role) == (2, 1, Role.PREFILL)
    assert first.scenario.max_num_batched_tokens == 512  # Sarathi's own budget
    assert second.scenario.max_num_batched_tokens == 8192
    assert (second.scenario.gpu, second.scenario.tensor_parallel_size) == ("a100-sxm-80gb", 2)
    assert (second.serving.max_loras, second.serving.scheduler) == (4, "vllm-v1")
    assert (got.routing, got.decode_routing) == ("power-of-two", "least-kv")
    assert (got.network.bandwidth, got.network.latency) == (50e9, pytest.approx(20e-6))
    assert got.migration is not None
    assert got.scaling is not None
    assert (got.migration.interval, got.scaling.initialise) == (1.0, 30.0)
    assert got.stages[0].per_token == pytest.approx(2e-6)
    assert got.pools == ("llm",)
    # one planned change, then failures of the four replicas, about ten each, all repaired
    assert got.changes[0].time == 100.0
    random = got.changes[1:]
    failed = [change for change in random if change.state == State.FAILED]
    assert len(random) == 2 * len(failed)
    assert 15 < len(failed) < 70
    assert {change.replica for change in failed} == {0, 1, 2, 3}


def test_equal_files_give_equal_failures(tmp_path):
    assert made(tmp_path, WHOLE) == made(tmp_path, WHOLE)
    assert made(tmp_path, WHOLE).changes != made(tmp_path, WHOLE + "seed = 1\n").changes


def test_pools_by_name(tmp_path):
    text = '[[group]]\npool = "small"\n[[group]]\npool = "large"\n[[group]]\npool = "small"\n'
    assert made(tmp_path, text).pools == ("small", "large")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["group: Field required"]),
        ("group = 3", ["group: Input should be a valid list"]),
        ("[[group]\n", ["not TOML"]),
        ("[[group]]\nrepliccas = 2", ["group 0: unknown key 'repliccas'", "nearest: replicas"]),
        ("[[group]]\nreplicas = -1", ["replicas: Input should be greater"]),
        ('[[group]]\nrole = "both of them"', ["role: Input should be 'both', 'prefill'"]),
        ('[[group]]\nscheduler = "vllm"', ["group 0: no scheduler named 'vllm'"]),
        ('[[group]]\ncluster = "x.toml"', ["unknown key 'cluster'"]),
        ("[[group]]\ntensor_parallel_size = 0", ["--tensor-parallel-size 0 is out of range"]),
        ('[[group]]\ntensor_parallel_size = "two"', ["is not a number"]),
        ("[[group]]\n[linc]\nx = 1", ["unknown key 'linc'", "nearest: link"]),
        ("[[group]]\n[link]\nlatency = 5", ["link.latency: 5 needs a unit, in quotes"]),
        ('[[group]]\n[link]\nlatency = "5 parsec"', ["unknown unit 'parsec'"]),
        ('[[group]]\n[link]\nbandwidth = "-5 GB/s"', ["bandwidth: Input should be greater than 0"]),
        ('[[group]]\n[link]\nfabric = "nvlink44"', ["link.fabric"]),
        ('[[group]]\n[scaler]\ninterval = "0 s"\nlow = 1\nhigh = 2', ["scaler.interval"]),
        (
            '[[group]]\n[scaler]\ninterval = "1 s"\nlow = 3\nhigh = 2',
            ["scaler.low must not exceed"],
        ),
        ('[[group]]\n[[stage]]\nservers = 0\nbase = "1 s"', ["stage.0.servers"]),
        ('[[group]]\n[[change]]\ntime = "1 s"\nreplica = 0\nstate = "off"', ["change.0.state"]),
        ("[[group]]\nreplicas = 1e999", ["replicas"]),
    ],
)
def test_mistakes_are_one_line(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        made(tmp_path, text)
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "cluster.toml"))
    assert "\n" not in said
    for word in words:
        assert word in said


def test_no_such_file_and_too_large_a_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        plan(ASK, Serving(cluster=str(tmp_path / "none.toml")))
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (2 << 20))
    with pytest.raises(DataError, match="more than 1 MiB"):
        plan(ASK, Serving(cluster=str(large)))


@pytest.mark.parametrize(
    ("serving", "word"),
    [
        (Serving(scheduler="vllm"), "no scheduler"),
        (Serving(speculative_tokens=-1), "--speculative-tokens -1 is out of range"),
        (Serving(acceptance=1.5), "--acceptance 1.5 is out of range"),
        (Serving(max_lora_rank=0), "--max-lora-rank 0"),
        (Serving(mask_us=-1.0), "--mask-us -1.0"),
        (Serving(preemption_mode="drop"), "recompute or swap"),  # pyright: ignore
    ],
    ids=str,
)
def test_bad_habits(serving, word):
    with pytest.raises(UsageError, match=word):
        plan(ASK, serving)
