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


def test_replicas_tenants_and_shared_prefixes(perfmodel):
    said = perfmodel(f"{FEW} --request-rate 40 --num-gpus 4 --tenant 'paid(ttft=60)' --osl 20 "
                     "--tenant 'free(share=3, priority=1)' --shared-prefix tokens=512")  # fmt: skip
    assert said.code == 0
    for word in ("4 replicas, least-outstanding", "paid", "free", "found in the cache", "MFU"):
        assert word in said.out


def test_lanes_of_one_replica(perfmodel):
    made = perfmodel(f"{FEW} --request-rate 5 -dp 2 --osl 20 --json").json()
    assert made["replicas"] == 2
    assert sum(row["finished"] for row in made["by_replica"]) == 300


def test_a_cluster_file(perfmodel, tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text("""
[[group]]
role = "prefill"
[[group]]
replicas = 2
role = "decode"
gpu = "a100-sxm-80gb"
""")
    made = perfmodel(f"{FEW} --request-rate 5 --osl 20 --cluster {path} --json").json()
    assert made["results"]["transfers"] == 300
    assert [row["role"] for row in made["by_replica"]] == ["prefill", "decode", "decode"]


def test_an_ensemble_says_how_sure_it_is(perfmodel):
    line = f"{FEW} --request-rate 5 --osl 20 --seeds 6 --tolerance 0.2 --json --backend"
    made, again = (perfmodel(f"{line} {backend}").json() for backend in ("serial", "loky"))
    assert made == again
    assert 5 <= made["seeds"]["n"] <= 6
    interval = made["intervals"]["mean_ttft_ms"]
    assert 0 < interval["half_width"] < 0.2 * made["results"]["mean_ttft_ms"]
    text = perfmodel(f"{FEW} --request-rate 5 --osl 20 --seeds 3 --backend serial").out
    assert "mean of 3 seeds ± 95% interval" in text


def test_capacity_is_a_rate_that_was_simulated(perfmodel):
    line = f"{FEW} --osl 20 --find-capacity --slo ttft=p99:300ms --slo tpot=mean:20 --json"
    made = perfmodel(line).json()["capacity"]
    best = made["request_rate"]
    met = {probe["request_rate"]: probe["met"] for probe in made["probes"]}
    assert met[best]
    assert not any(good for rate, good in met.items() if rate > best)
    beyond = min(rate for rate in met if rate > best)
    assert beyond < 1.03 * best
    # what it says holds when asked for itself
    count = max(300, int(best * 60) + 1)
    again = perfmodel(f"{ASK} --osl 20 --request-rate {best!r} --num-requests {count} --json")
    assert again.json()["results"]["p99_ttft_ms"] <= 300


def test_no_rate_will_do(perfmodel):
    said = perfmodel(f"{ASK} --osl 20 --find-capacity --slo ttft=p99:1us --num-requests 20")
    assert said.code == 3
    assert "no rate meets the limits" in said.err


def test_a_missed_limit_is_an_answer_with_code_3(perfmodel):
    said = perfmodel(f"{FEW} --request-rate 5 --osl 20 --slo ttft=p99:1us --slo tpot=mean:1s")
    assert said.code == 3
    assert "throughput" in said.out
    assert "infeasible: p99_ttft_ms is" in said.err
    assert "mean_tpot_ms" not in said.err


def test_result_files(perfmodel, tmp_path):
    paths = [tmp_path / name for name in ("requests.csv", "series.jsonl", "steps.json")]
    line = "{} --request-rate 5 --osl 20 --requests-out {} --time-series {} --chrome-trace {}"
    assert perfmodel(line.format(FEW, *paths)).code == 0
    assert len(paths[0].read_text().splitlines()) == 301
    rows = [json.loads(row) for row in paths[1].read_text().splitlines()]
    assert sum(row["finished"] for row in rows) == 300
    assert len(json.loads(paths[2].read_text())["traceEvents"]) > 300


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
        ("--request-rate 5 --prefix 10", 2, "--shared-prefix"),
        ("--request-rate 5 --slo ttft=p99", 2, "is not METRIC=STATISTIC:TIME"),
        ("--request-rate 5 --slo ttft=p98:5", 2, "no statistic 'p98'"),
        ("--request-rate 5 --slo tfft=p99:5", 2, "nearest: ttft"),
        ("--request-rate 5 --slo ttft=p99:5parsec", 2, "unknown unit 'parsec'"),
        ("--request-rate 5 --slo ttft=p99:0", 2, "above zero"),
        ("--find-capacity", 2, "needs limits"),
        ("--request-rate 5 --seeds 0", 2, "--seeds 0 must be at least 1"),
        ("--request-rate 5 --seeds 3 --backend lucky", 2, "nearest: loky"),
        ("--request-rate 5 --seeds 3 --tolerance 0", 2, "tolerance 0.0 must be above zero"),
        ("--request-rate 5 --seeds 3 --requests-out r.csv", 2, "files hold one run"),
        ("--request-rate 5 --requests-out r.xls", 2, "suffix '.xls' is not one of .csv"),
        ("--request-rate 5 --requests-out none/r.csv", 2, "no folder 'none'"),
        ("--request-rate 5 --chrome-trace r.csv", 2, "is not one of .json"),
        ("--request-rate 5 --cluster none.toml", 2, "none.toml: cannot be read"),
        ("--request-rate 5 --graph ragg", 2, "nearest: rag"),
        ("--request-rate 5 --tenant 'paid(shore=1)'", 2, "nearest: share"),
        ("--request-rate 5 --speculative-tokens 2 --acceptance 2", 2, "out of range"),
        ("--request-rate 5 --routing best", 2, "no routing named 'best'"),
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
