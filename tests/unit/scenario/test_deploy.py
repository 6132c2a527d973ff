"""From a plan to a cluster: lanes, caches, links, start times, drafts, adapters."""

import dataclasses

import pytest

import hwdb
from perfmodel.core.errors import InfeasibleError, MissingDataError, UsageError
from perfmodel.scenario.deploy import deploy, plan
from perfmodel.scenario.scenario import Scenario
from perfmodel.scenario.serving import Group, Network, Plan, Scaling, Serving
from perfmodel.scenario.simulation import run, simulate
from perfmodel.serving.simulate.fleet import Change, Migration, Role, State
from tests.unit.serving.simulation import poisson

ASK = Scenario(model="meta-llama/Llama-3.1-8B", gpu="h100-sxm", request_rate=1.0)
REQUESTS = poisson(1.0, 50, 800, 400)
TOKEN = 2 * 8 * 128 * 2 * 32  # keys and values, 8 heads of 128, bf16, 32 layers [B]


def with_(**fields):
    return dataclasses.replace(ASK, **fields)


def test_lanes_share_what_a_replica_has():
    one = deploy(plan(ASK, Serving()), REQUESTS).cluster.replicas
    assert len(one) == 1
    layout = with_(data_parallel_size=2, pipeline_parallel_size=2, num_gpus=8)
    made = deploy(plan(layout, Serving()), REQUESTS)
    assert len(made.cluster.replicas) == 2 * 2 * 2
    assert made.gpus == 8
    # two stages hold twice the cache per token's layer and two lanes share it; weights free more
    assert made.cluster.replicas[0].engine.blocks > 0.9 * one[0].engine.blocks
    rent = sum(replica.price for replica in made.cluster.replicas)
    assert rent == pytest.approx(8 * one[0].price)


def test_budget_is_the_schedulers_own():
    for scheduler, budget in (("sarathi", 512), ("splitfuse", 768), ("vllm-v1", 8192)):
        made = deploy(plan(ASK, Serving(scheduler=scheduler)), REQUESTS)
        assert made.cluster.replicas[0].engine.budget == budget
    given = with_(max_num_batched_tokens=1000)
    made = deploy(plan(given, Serving(scheduler="sarathi")), REQUESTS)
    assert made.cluster.replicas[0].engine.budget == 1000


def test_transfers_take_a_tokens_share_of_the_network():
    groups = (
        Group(ASK, Serving(), 1, role=Role.PREFILL),
        Group(ASK, Serving(), 2, role=Role.DECODE),
    )
    link = deploy(Plan(groups, "round-robin", network=Network(50e9, 1e-5)), REQUESTS).cluster.link
    efficiency = float(hwdb.calibration().link.value)
    assert link.latency == 1e-5
    assert link.per_token == pytest.approx(TOKEN / (50e9 * efficiency))
    # the machine's own network: 400 Gbit/s for each of its GPUs
    own = deploy(Plan(groups, "round-robin"), REQUESTS).cluster.link
    assert own.per_token == pytest.approx(link.per_token, rel=0.01)
    # tensor-parallel ranks send their shares at once
    halves = tuple(dataclasses.replace(g, scenario=with_(tensor_parallel_size=2)) for g in groups)
    half = deploy(Plan(halves, "round-robin"), REQUESTS).cluster.link
    assert half.per_token == pytest.approx(own.per_token / 2)


def test_a_machine_without_a_network_moves_no_cache():
    groups = (Group(with_(gpu="jetson-orin"), Serving(), 2),)
    moving = Plan(groups, "random", migration=Migration(1.0, 1.0, 2.0))
    with pytest.raises(UsageError, match=r"give link\.bandwidth"):
        deploy(moving, REQUESTS)
    wired = dataclasses.replace(moving, network=Network(1e9, 0.0))
    assert deploy(wired, REQUESTS).cluster.link.per_token > 0


def test_start_times_of_spare_replicas():
    def start(weights):
        rule = Scaling(1.0, 1.0, 8.0, initialise=30.0, weights=weights)
        group = Group(ASK, Serving(), 1, spare=2)
        made = deploy(Plan((group,), "round-robin", scaling=rule), REQUESTS).cluster
        assert [r.state for r in made.replicas] == [State.READY, State.OFF, State.OFF]
        return made.scaler.start_time

    weights = 8.03e9 * 2
    drive = float(hwdb.storage("nvme-gen4").read_bandwidth.value)
    assert start("resident") == 30.0
    assert start("nvme-gen4") == pytest.approx(30 + weights / drive, rel=0.01)
    assert 30 < start("peer") < 30.1
    with pytest.raises(Exception, match="neither resident nor peer"):
        start("floppy")


def test_swapping_and_adapters_cross_the_host_link():
    serving = Serving(preemption_mode="swap", max_loras=3, max_lora_rank=16)
    engine = deploy(plan(ASK, serving), REQUESTS).cluster.replicas[0].engine
    machine = hwdb.gpu("h100-sxm")
    host = float(machine.host.bandwidth.value) * float(hwdb.calibration().link.value)
    assert engine.swap_time == pytest.approx(16 * TOKEN / host)
    # q+k+v 4096 -> 6144, o 4096 -> 4096, gate+up 4096 -> 28672, down 14336 -> 4096
    width = (4096 + 6144) + (4096 + 4096) + (4096 + 28672) + (14336 + 4096)
    assert engine.adapter_time == pytest.approx(2 * 16 * 32 * width / host)
    assert engine.adapters == 3


def test_drafts_adapt_to_the_batch():
    serving = Serving(speculative_tokens=5, acceptance=0.8, adaptive_speculation=True,
                      speculative_model="meta-llama/Llama-3.2-1B")  # fmt: skip
    rule = deploy(plan(ASK, serving), REQUESTS).cluster.replicas[0].engine.speculation
    assert rule is not None
    assert len(rule.lengths) == len(rule.draft) == 51
    assert 0 < rule.draft[1] < 2e-3
    assert rule.lengths.max() <= 5
    assert rule.lengths[1] >= 2  # alone, memory bound: worth while
    fixed = dataclasses.replace(serving, adaptive_speculation=False, speculative_model=None)
    rule = deploy(plan(ASK, fixed), REQUESTS).cluster.replicas[0].engine.speculation
    assert rule is not None
    assert set(rule.lengths) == {5}
    assert not rule.draft.any()


def test_a_large_batch_on_a_slow_gpu_drafts_less():
    serving = Serving(speculative_tokens=8, acceptance=0.6, adaptive_speculation=True)
    many = poisson(1.0, 400, 200, 100)
    scenario = with_(gpu="l4", max_num_seqs=400, quantization="fp8")
    rule = deploy(plan(scenario, serving), many).cluster.replicas[0].engine.speculation
    assert rule is not None
    assert rule.lengths[400] < rule.lengths[1]


def test_prefix_caching_follows_the_requests():
    shares = simulate(model=ASK.model, gpu=ASK.gpu, request_rate=5.0, num_requests=40, isl=320,
                      osl=4, shared_prefix="tokens=256", compiled=False)  # fmt: skip
    assert shares.deployment.cluster.replicas[0].engine.prefix_cache
    assert shares.simulation.record.hits[5:].tolist() == [256] * 35
    off = run(
        dataclasses.replace(
            shares.experiment,
            serving=dataclasses.replace(shares.experiment.serving, enable_prefix_caching=False),
        )
    )
    assert off.simulation.record.hits.sum() == 0


def test_pictures():
    made = simulate(model="stabilityai/stable-diffusion-xl-base-1.0", gpu="h100-sxm",
                    request_rate=0.1, workload="sdxl-lightning", num_requests=5, max_num_seqs=4,
                    compiled=False)  # fmt: skip
    guided = simulate(model="stabilityai/stable-diffusion-xl-base-1.0", gpu="h100-sxm",
                      request_rate=0.01, workload="sdxl", num_requests=3, max_num_seqs=4,
                      compiled=False)  # fmt: skip
    alone = made.deployment.cluster.surfaces[0]
    assert made.simulation.e2el.min() == pytest.approx(4 * (alone.overhead + alone.rows[1]))
    two = guided.deployment.cluster.surfaces[0]
    assert alone.rows[1] < two.rows[1] < 2 * alone.rows[1]
    assert guided.simulation.e2el.min() == pytest.approx(50 * (two.overhead + two.rows[1]))


def test_an_encoder_reads_texts_whole():
    made = simulate(model="google-bert/bert-base-uncased", gpu="l4", request_rate=200.0, isl=300,
                    osl=1, num_requests=200, max_num_batched_tokens=512,
                    compiled=False)  # fmt: skip
    table = made.deployment.cluster.surfaces[0]
    alone = made.simulation.e2el.min()
    assert alone == pytest.approx(table.time([], [(300, 0)]))
    assert not made.deployment.cluster.replicas[0].engine.policy.chunked
    assert made.results()["p99_ttft_ms"] >= made.results()["mean_ttft_ms"] > alone * 1e3
    with pytest.raises(UsageError, match="generates none: --osl 1"):
        simulate(model="google-bert/bert-base-uncased", gpu="l4", request_rate=1.0, isl=9,
                 osl=2)  # fmt: skip


def test_a_graph_asks_models_by_name(tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text("""
[[group]]
[[group]]
pool = "embedding"
model = "google-bert/bert-base-uncased"
gpu = "l4"
[[group]]
pool = "reranker"
model = "google-bert/bert-large-uncased"
gpu = "l4"
replicas = 2
""")
    made = simulate(model=ASK.model, gpu=ASK.gpu, request_rate=2.0, graph="rag(rerank=4)",
                    num_requests=40, cluster=str(path), compiled=False)  # fmt: skip
    shares = [replica.engine.prefix_cache for replica in made.deployment.cluster.replicas]
    assert shares == [True, False, False, False]  # an encoder has no cache
    served = made.simulation.record.replica.reshape(40, 6)
    assert set(served[:, 0]) == {1}  # embed
    assert set(served[:, 1:5].ravel()) == {2, 3}  # rerank
    assert set(served[:, 5]) == {0}  # answer
    with pytest.raises(UsageError, match="asks pool 'small', which the cluster does not have"):
        simulate(model=ASK.model, gpu=ASK.gpu, request_rate=2.0, graph="cascade",
                 cluster=str(path), compiled=False)  # fmt: skip


def test_changes_reach_all_lanes():
    group = Group(with_(data_parallel_size=2), Serving(), 2)
    changes = (Change(1.0, 1, State.FAILED),)
    made = deploy(Plan((group,), "round-robin", changes=changes), REQUESTS).cluster
    assert [(c.time, c.replica) for c in made.changes] == [(1.0, 2), (1.0, 3)]
    with pytest.raises(UsageError, match="a change of replica 7; the cluster has 2"):
        deploy(Plan((group,), "round-robin", changes=(Change(1.0, 7, State.FAILED),)), REQUESTS)


def test_what_cannot_be():
    with pytest.raises(InfeasibleError, match="does not fit"):
        deploy(plan(with_(model="meta-llama/Llama-3.1-70B"), Serving()), REQUESTS)
    with pytest.raises(InfeasibleError, match="longest sequence of 1000"):
        deploy(plan(with_(max_model_len=1000), Serving()), REQUESTS)
    with pytest.raises(MissingDataError):
        deploy(plan(with_(gpu="jetson-thor"), Serving()), REQUESTS)
    with pytest.raises(UsageError, match="no routing named"):
        deploy(plan(ASK, Serving(routing="best")), REQUESTS)
    with pytest.raises(UsageError, match="no replicas"):
        deploy(Plan((Group(ASK, Serving(), 0),), "random"), REQUESTS)


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ({"request_rate": 1.0, "prompt": 3}, "simulate has no 'prompt'"),
        ({}, "--request-rate"),
        ({"request_rate": 1.0, "prefix": 10}, "--shared-prefix"),
        ({"request_rate": 1.0, "max_concurrency": 2}, "not both"),
    ],
)
def test_bad_questions(question, word):
    with pytest.raises(UsageError, match=word):
        simulate(model=ASK.model, gpu=ASK.gpu, compiled=False, **question)
