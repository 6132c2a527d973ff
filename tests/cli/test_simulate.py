"""``perfmodel simulate``: what it prints, and what it says to bad input."""

import json

import pytest

ASK = "simulate --model meta-llama/Llama-3.1-8B --gpu h100-sxm"
FEW = f"{ASK} --num-requests 300"


def test_text_names_every_metric(perfmodel):
    said = perfmodel(f"{FEW} --request-rate 5 --isl 500 --osl 50 --goodput ttft:100 tpot:20")
    assert said.code == 0
    for word in ("ttft", "tpot", "e2el", "queue", "itl", "p99", "preemptions", "uncalibrated"):
        assert word in said.out


def test_json_repeats_bit_by_bit_and_follows_the_seed(perfmodel):
    lines = [
        f"{FEW} --request-rate 5 --isl 'uniform(100, 900)' --osl 50 --json --seed {seed}"
        for seed in (1, 1, 2)
    ]
    first, again, other = (perfmodel(line).json() for line in lines)
    assert first == again
    assert first["results"] != other["results"]
    assert first["schema"] == "perfmodel/simulate/1"
    assert first["results"]["requests"] == 300
    assert first["inputs"]["isl"] == "uniform(100, 900)"


def test_closed_loop_runs_its_users(perfmodel):
    made = perfmodel(f"{FEW} --max-concurrency 8 --osl 100 --json").json()["results"]
    assert 7 < made["running"] <= 8


def test_overload_queues(perfmodel):
    made = perfmodel(f"{FEW} --request-rate 1000 --max-num-seqs 4 --osl 20 --json").json()
    assert made["results"]["p99_queue_time_ms"] > 1000


def test_files(perfmodel, tmp_path):
    for suffix in ("json", "csv", "txt"):
        path = tmp_path / f"answer.{suffix}"
        assert perfmodel(f"{FEW} --request-rate 5 --osl 1 -o {path}").code == 0
        assert path.stat().st_size > 100
    # one output token: there is no TPOT
    assert json.loads((tmp_path / "answer.json").read_text())["results"]["mean_tpot_ms"] is None


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ("", 2, "--request-rate (open loop) or --max-concurrency"),
        ("--request-rate 0", 2, "--request-rate 0.0 is out of range"),
        ("--request-rate 5 --num-requests 0", 2, "at least 1"),
        ("--request-rate 5 --isl -3", 2, "length is -3"),
        ("--request-rate 5 --isl many", 2, "length 'many'"),
        ("--request-rate 5 --seed -1", 2, "seed of -1"),
        ("--request-rate 5 --prefix 10", 2, "prefix caching"),
        ("--request-rate 5 -dp 2", 2, "one replica"),
        ("--request-rate 5 --arrivals possion", 2, "nearest: poisson"),
        ("--request-rate 5 --scheduler vllm", 2, "vllm-v1"),
        ("--request-rate 5 --goodput ttft:fast", 2, "'fast' is not a number"),
        ("--request-rate 5 --goodput tfft:5", 2, "nearest: ttft"),
        ("--request-rate 5 --goodput ttft:0", 2, "above zero"),
        ("--request-rate 5 --isl 200000", 3, "200000 + 256 tokens, more than"),
        ("--request-rate 5 --max-model-len 1000", 3, "longest sequence of 1000"),
        (
            "--request-rate 5 --isl 100000 --gpu-memory-utilization 0.3",
            3,
            "needs 6266 cache blocks",
        ),
        ("--request-rate 5 -tp 3", 3, "infeasible"),
    ],
)
def test_bad_input(perfmodel, flags, code, words):
    said = perfmodel(f"{ASK} {flags}")
    assert (said.code, said.out) == (code, "")
    assert words in said.err
    assert len(said.err.splitlines()) == 1
