"""What the commands answer: the envelope, its arithmetic, its formats, and the lists."""

import csv
import io
import json
import math
import subprocess
import sys

import pytest

from hwdb.records import KINDS
from perfmodel.core.formula import FORMULAS
from perfmodel.models import preset
from perfmodel.scenario.explain import CHAINS
from perfmodel.serving.metric import METRICS

EXAMPLE = (
    "estimate --model meta-llama/Llama-3.1-70B-Instruct --gpu h100-sxm -tp 4 "
    "--isl 4000 --osl 1000 --max-concurrency 64"
)
SMALL = "--model meta-llama/Llama-3.1-8B --gpu h100-sxm --max-concurrency 8"
MEMORY = {"weights", "kv_cache_in_use", "kv_cache_pool", "activations", "graphs", "communication",
          "runtime", "capacity"}  # fmt: skip


@pytest.fixture
def answer(perfmodel):
    return perfmodel(f"{EXAMPLE} --json").json()


def estimated(perfmodel, line):
    said = perfmodel(f"estimate {line} --json")
    assert said.code == 0, said.err
    return said.json()


# ---- the envelope --------------------------------------------------------------------------------


def test_envelope_keys(answer):
    assert set(answer) == {"schema", "tool", "inputs", "results", "breakdown", "provenance",
                           "validity", "warnings"}  # fmt: skip
    assert answer["schema"] == "perfmodel/estimate/1"
    assert answer["inputs"]["isl"] == 4000
    assert answer["inputs"]["resolved"]["precision"] == "bf16"


def test_results_hold_every_metric_and_more(answer):
    results = answer["results"]
    assert {metric.column for metric in METRICS.values()} <= set(results)
    for column in ("ttft_ms", "tpot_ms", "output_throughput", "throughput_per_gpu",
                   "energy_per_token_j", "cost_per_mtok"):  # fmt: skip
        assert results[column] > 0
    assert results["fits"] is True
    assert results["feasible"] is True
    assert set(results["memory_gb"]) == MEMORY
    assert results["bottleneck"]


def test_results_agree_with_each_other(answer):
    results, inputs = answer["results"], answer["inputs"]
    assert results["gpus"] == 4
    assert results["throughput_per_gpu"] == pytest.approx(results["output_throughput"] / 4)
    assert results["interactivity"] == pytest.approx(1e3 / results["tpot_ms"])
    decoding = results["tpot_ms"] * (inputs["osl"] - 1)
    assert results["e2el_s"] * 1e3 == pytest.approx(results["ttft_ms"] + decoding)
    # Little's law: requests in flight = rate x time in the system
    in_flight = results["request_throughput"] * results["e2el_s"]
    assert in_flight == pytest.approx(inputs["max_concurrency"], rel=1e-9)
    hourly = results["gpus"] * inputs["resolved"]["price_usd_per_gpu_hour"]
    tokens = results["output_throughput"] * 3600
    assert results["cost_per_mtok"] == pytest.approx(hourly / tokens * 1e6)
    joules = results["power_w"] / results["output_throughput"]  # power of all GPUs
    assert results["energy_per_token_j"] == pytest.approx(joules)


def test_memory_parts_fill_what_the_engine_takes(answer):
    memory, inputs = answer["results"]["memory_gb"], answer["inputs"]
    fixed = sum(memory[part] for part in MEMORY - {"kv_cache_in_use", "capacity"})
    assert fixed == pytest.approx(memory["capacity"] * inputs["gpu_memory_utilization"])
    assert memory["kv_cache_in_use"] <= memory["kv_cache_pool"]
    assert memory["weights"] == pytest.approx(70.553706496 * 2 / 4, rel=1e-3)


def test_tpot_counts_the_prefills_of_other_users(answer, perfmodel):
    assert answer["breakdown"]["tpot_ms"]["prefill_of_others"] > 0
    alone = perfmodel(f"{EXAMPLE.replace('-concurrency 64', '-concurrency 1')} --json").json()
    assert alone["breakdown"]["tpot_ms"]["prefill_of_others"] == 0
    assert alone["results"]["tpot_ms"] < answer["results"]["tpot_ms"]


@pytest.mark.parametrize(
    "line",
    [
        SMALL,
        "--model meta-llama/Llama-3.1-70B --gpu h100-sxm -tp 4 -pp 2 --max-concurrency 64",
        "--model deepseek-ai/DeepSeek-V3 --gpu h200-sxm -tp 8 -ep 8 --max-concurrency 256",
        "--model Qwen/Qwen3-32B --gpu h100-sxm -tp 2 --request-rate 1",
        "--model state-spaces/mamba2-2.7b --gpu l4 --max-concurrency 4",
    ],
)
def test_parts_of_a_token_sum_to_it(line, perfmodel):
    answer = estimated(perfmodel, line)
    parts = answer["breakdown"]["tpot_ms"]
    assert math.fsum(parts.values()) == pytest.approx(answer["results"]["tpot_ms"], rel=1e-9)
    assert min(parts.values()) >= 0
    prefill = answer["breakdown"]["ttft_ms"]
    assert math.fsum(prefill.values()) == pytest.approx(answer["results"]["ttft_ms"], rel=1e-9)
    for step in ("decode_step", "mixed_step"):
        shares = math.fsum(row["share"] for row in answer["breakdown"][step])
        assert 0 < shares <= 1 + 1e-9


def test_interval_lies_around_the_result(answer):
    assert answer["validity"]["calibrated"] is False
    spans = answer["validity"]["interval"]
    assert {"ttft_ms", "tpot_ms", "output_throughput"} <= set(spans)
    for column, (low, high) in spans.items():
        assert low < answer["results"][column] < high


def test_provenance_names_what_was_read_where(answer):
    values = answer["provenance"]["values"]
    told = {row["what"] for row in values}
    assert {"h100-sxm: memory.bandwidth", "h100-sxm: peak.bf16"} <= told
    for row in values:
        assert row["value"]
        assert row["kind"]
        assert row["source"]
    assert sum(answer["provenance"]["kinds"].values()) == len(values)
    assert "meta-llama" in answer["provenance"]["model"]
    assert answer["provenance"]["modified"] == []


# ---- formats and files ---------------------------------------------------------------------------


def test_prose_goes_to_stderr_and_json_alone_to_stdout(perfmodel):
    said = perfmodel(f"estimate {SMALL} --set gpu.memory.bandwidth='6 TB/s' --json")
    assert said.json()["warnings"] == ["modified values: gpu.memory.bandwidth"]
    assert said.err == "note: modified values: gpu.memory.bandwidth\n"


@pytest.mark.parametrize("form", ["", "--json", "--csv"])
def test_equal_questions_get_equal_bytes(form, perfmodel):
    assert perfmodel(f"{EXAMPLE} {form}") == perfmodel(f"{EXAMPLE} {form}")


@pytest.mark.parametrize("line", [EXAMPLE, f"{EXAMPLE} --set gpu.power.tdp='500 W'",
                                  f"estimate {SMALL} -tp 3"])  # fmt: skip
def test_csv_holds_the_same_numbers_as_json(line, perfmodel):
    results = perfmodel(f"{line} --json").json()["results"]
    (row,) = csv.DictReader(io.StringIO(perfmodel(f"{line} --csv").out))
    for name, value in results.items():
        if name == "memory_gb":
            for part, size in value.items():
                assert float(row[f"memory_{part}_gb"]) == size
        elif value is None or isinstance(value, (bool, str)):
            assert row[name] == ("" if value is None else str(value))
        else:
            assert float(row[name]) == value
    assert row["model"] in line
    assert float(row["isl"]) > 0


@pytest.mark.parametrize(("suffix", "form"), [("json", "--json"), ("csv", "--csv"), ("txt", "")])
def test_a_file_is_what_would_have_been_printed(suffix, form, tmp_path, perfmodel):
    path = tmp_path / f"answer.{suffix}"
    path.write_text("old")
    said = perfmodel(f"{EXAMPLE} -o {path}")
    assert (said.code, said.out) == (0, "")
    assert path.read_text().rstrip("\n") == perfmodel(f"{EXAMPLE} {form}").out.rstrip("\n")
    assert list(tmp_path.iterdir()) == [path]


def test_an_infeasible_answer_is_written_too(tmp_path, perfmodel):
    path = tmp_path / "answer.json"
    assert perfmodel(f"estimate {SMALL} -tp 3 -o {path}").code == 3
    results = json.loads(path.read_text())["results"]
    assert (results["feasible"], results["tpot_ms"]) == (False, None)
    assert "attention heads" in results["reason"]
    assert "tp of 1, 2" in results["nearest_feasible_change"]


def test_text_shows_the_numbers_of_the_json(answer, perfmodel):
    text = perfmodel(EXAMPLE).out
    for column in ("tpot_ms", "ttft_ms", "cost_per_mtok"):
        assert f"{answer['results'][column]:.3g}" in text
    assert f"bottleneck: {answer['results']['bottleneck']}" in text
    assert "uncalibrated" in text


@pytest.mark.parametrize("line", [EXAMPLE, f"explain tpot {SMALL}", "hw ls", "hw show h100-sxm",
                                  "model show meta-llama/Llama-3.1-8B", "--help"])  # fmt: skip
def test_no_escape_codes_without_a_terminal(line, perfmodel):
    said = perfmodel(line)
    assert said.code == 0
    assert "\x1b" not in said.out + said.err


def test_no_escape_codes_where_colour_is_refused(perfmodel, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\x1b" not in perfmodel("hw ls").out


def test_a_reader_who_leaves_early_sees_no_complaint():
    command = (
        f"'{sys.executable}' -m perfmodel model ls --json | head -c 100; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# ---- the question --------------------------------------------------------------------------------


def test_from_vllm_is_the_same_question(perfmodel):
    flags = (
        "-tp 2 -pp 2 --kv-cache-dtype fp8 --quantization fp8 --max-model-len 32768 "
        "--max-num-seqs 64 --max-num-batched-tokens 4096 --gpu-memory-utilization 0.85"
    )
    load = "--gpu h100-sxm --isl 2000 --osl 300 --max-concurrency 32 --json"
    asked = perfmodel(f"estimate --model Qwen/Qwen3-32B {flags} {load}")
    pasted = perfmodel(f"estimate --from-vllm 'vllm serve Qwen/Qwen3-32B {flags}' {load}")
    spelled = perfmodel(
        "estimate --from-vllm 'vllm serve --model=Qwen/Qwen3-32B --tensor-parallel-size=2 "
        "--pipeline-parallel-size 2 --kv-cache-dtype fp8_e4m3 -q fp8 --max-model-len 32K "
        f"--max-num-seqs 64 --max-num-batched-tokens 4096 --gpu-memory-utilization .85' {load}"
    )
    assert asked == pasted
    assert spelled.json()["results"] == asked.json()["results"]


def test_from_vllm_names_what_it_leaves_out_and_yields_to_flags(perfmodel):
    line = "'vllm serve Qwen/Qwen3-32B -tp 2 --port 8000 --enforce-eager'"
    said = perfmodel(f"estimate --from-vllm {line} --gpu h100-sxm -tp 4 --json")
    assert said.err == "note: not used from the vLLM line: --port --enforce-eager\n"
    assert said.json()["inputs"]["tensor_parallel_size"] == 4


def test_from_vllm_expert_parallel_spreads_over_all_ranks(perfmodel):
    line = "'vllm serve deepseek-ai/DeepSeek-V3 -tp 4 -dp 4 --enable-expert-parallel'"
    answer = estimated(perfmodel, f"--from-vllm {line} --gpu h200-sxm")
    assert answer["inputs"]["expert_parallel_size"] == 16


def test_set_changes_the_answer_and_marks_it(perfmodel):
    plain = estimated(perfmodel, SMALL)
    faster = estimated(perfmodel, f"{SMALL} --set gpu.memory.bandwidth='6.7 TB/s'")
    assert faster["results"]["tpot_ms"] < plain["results"]["tpot_ms"]
    assert faster["provenance"]["modified"] == ["gpu.memory.bandwidth"]
    assert faster["warnings"] == ["modified values: gpu.memory.bandwidth"]
    kinds = {row["what"]: row["kind"] for row in faster["provenance"]["values"]}
    assert kinds["h100-sxm: memory.bandwidth"] == "modified"
    assert kinds["h100-sxm: peak.bf16"] != "modified"


def test_set_to_the_datasheet_value_changes_nothing_else(perfmodel):
    same = estimated(perfmodel, f"{SMALL} --set gpu.memory.bandwidth='3350 GB/s'")
    assert same["results"] == estimated(perfmodel, SMALL)["results"]


def test_set_adds_a_datapath_the_part_lacks(perfmodel):
    line = f"estimate {SMALL} -q nvfp4"
    assert perfmodel(line).code == 3
    assert perfmodel(f"{line} --set gpu.peak.fp4='2 PFLOP/s'").code == 0


def test_replicas_multiply_throughput_and_nothing_per_user(perfmodel):
    one = estimated(perfmodel, SMALL)["results"]
    eight = estimated(perfmodel, f"{SMALL} --num-gpus 8 --max-concurrency 64".replace(
        "--max-concurrency 8", "", 1))["results"]  # fmt: skip
    assert eight["tpot_ms"] == pytest.approx(one["tpot_ms"], rel=1e-12)
    assert eight["output_throughput"] == pytest.approx(8 * one["output_throughput"], rel=1e-12)


@pytest.mark.parametrize(
    "line",
    [
        "--model google-bert/bert-base-uncased --gpu l4 --isl 128 --max-concurrency 32",
        "--model openai/whisper-large-v3 --gpu l4 --isl 1500 --osl 100",
        "--model google/vit-base-patch16-224 --gpu t4 --isl 197",
        "--model microsoft/resnet-50 --gpu t4",
        "--model stabilityai/stable-diffusion-xl-base-1.0 --gpu rtx-4090",
        "--model state-spaces/mamba2-2.7b --gpu a100-sxm-80gb",
        "--model nvidia/Nemotron-H-8B-Base-8K --gpu h100-sxm",
        "--model mistralai/Mixtral-8x7B-v0.1 --gpu h100-sxm -tp 2",
        "--model openai/gpt-oss-120b --gpu b200-sxm",
        "--model deepseek-ai/DeepSeek-V3 --gpu h200-sxm -tp 8 -ep 8",
        "--model meta-llama/Llama-3.1-8B --gpu tpu-v5e -tp 4",
        "--model meta-llama/Llama-3.1-8B --gpu m4-max",
    ],
)
def test_every_kind_of_model_answers(line, perfmodel):
    results = estimated(perfmodel, line)["results"]
    assert results["ttft_ms"] > 0
    assert results["request_throughput"] > 0
    assert perfmodel(f"estimate {line}").code == 0
    for metric in ("ttft", "memory"):
        assert perfmodel(f"explain {metric} {line}").code == 0
        assert perfmodel(f"explain {metric} {line} --json").json()["chain"]


# ---- explain -------------------------------------------------------------------------------------


def test_explain_shows_formula_numbers_units_and_source(perfmodel):
    text = perfmodel(f"explain tpot {SMALL} --detail formula").out
    assert "tpot = chunks_per_step*(-decode_time + mixed_time) + decode_time" in text
    assert "kernel_time = overhead + Max(compute_time, memory_time)" in text
    assert "3.35 TB/s    h100-sxm: memory.bandwidth" in text
    assert "Sarathi-Serve" in text


@pytest.mark.parametrize(
    ("detail", "heads"),
    [
        ("time", ("decode step: ", "operator", "bound by", "gate_up_proj")),
        ("formula", ("tpot: time per output token", "operator gate_up_proj, once")),
        ("memory", ("memory of the fullest GPU", "kv cache pool")),
        ("energy", ("power and energy", "energy_per_token_j")),
        ("source", ("values used", "memory.bandwidth", "model: ", "price: ")),
    ],
)
def test_explain_sections(detail, heads, perfmodel):
    said = perfmodel(f"explain tpot {SMALL} --detail {detail}")
    assert said.code == 0
    for head in heads:
        assert head in said.out
    assert said.out in perfmodel(
        f"explain tpot {SMALL} --detail {detail},{'time' if detail != 'time' else 'memory'}"
    ).out  # fmt: skip


def test_explain_one_operator(perfmodel):
    text = perfmodel(f"explain tpot {SMALL} --detail formula --operator lm_head").out
    assert "operator lm_head, once" in text
    assert "operator gate_up_proj" not in text


def leaves(node):
    inner = node.get("from", [])
    yield from ([node] if not inner else (leaf for child in inner for leaf in leaves(child)))


def test_explain_json_is_a_tree_down_to_datasheet_values(perfmodel):
    told = perfmodel(f"explain tpot {SMALL} --json").json()
    assert told["schema"] == "perfmodel/explain/1"
    assert told["chain"]["value"] == pytest.approx(told["results"]["tpot_ms"] / 1e3, rel=1e-12)
    for name, chain in told["operators"].items():
        assert chain["symbol"] == "kernel_time", name
        assert chain["formula"] in FORMULAS
    facts = {leaf["source"].split(" (")[0]: leaf for leaf in leaves(told["operators"]["lm_head"])}
    assert facts["h100-sxm: memory.bandwidth"]["value"] == 3.35e12
    assert "h100-sxm: peak.bf16" in facts


@pytest.mark.parametrize("metric", CHAINS)
def test_explain_every_metric(metric, perfmodel):
    assert perfmodel(f"explain {metric} {SMALL}").code == 0
    chain = perfmodel(f"explain {metric} {SMALL} --json").json()["chain"]
    assert chain["formula"] in FORMULAS
    assert chain["from"]


@pytest.mark.parametrize("metric", CHAINS)
def test_explain_says_none_where_there_is_no_number(metric, perfmodel):
    for line in (
        "--model google-bert/bert-base-uncased --gpu rtx-6000-ada --isl 128",
        f"{SMALL} --request-rate 1000".replace("--max-concurrency 8", ""),
    ):
        assert perfmodel(f"explain {metric} {line}").code in (0, 3)
        perfmodel(f"explain {metric} {line} --json").json()  # strict: null, never NaN


def test_explain_writes_files(tmp_path, perfmodel):
    for name in ("chain.json", "chain.txt"):
        assert perfmodel(f"explain tpot {SMALL} -o {tmp_path / name}").code == 0
    assert json.loads((tmp_path / "chain.json").read_text())["metric"] == "tpot"
    assert "tpot = " in (tmp_path / "chain.txt").read_text()


# ---- lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_hw_ls(kind, perfmodel):
    rows = perfmodel(f"hw ls {kind} --json").json()
    assert len({row["id"] for row in rows}) == len(rows) > 0
    text = perfmodel(f"hw ls {kind}").out
    for row in rows:
        assert f" {row['id']} " in text
    shown = perfmodel(f"hw show {rows[0]['id']} --kind {kind} --json").json()
    assert shown["id"] == rows[0]["id"]


def test_hw_ls_lists_gpus_unless_told(perfmodel):
    assert perfmodel("hw ls").out == perfmodel("hw ls gpus").out


def test_hw_show_cites_every_value(perfmodel):
    shown = perfmodel("hw show H100_SXM --json").json()
    rows = {row["what"]: row for row in shown["values"]}
    assert shown["id"] == "h100-sxm"
    assert rows["memory.bandwidth"]["value"] == "3.35 TB/s"
    for row in rows.values():
        assert row["kind"] == "unknown" or row["url"].startswith("https://")
    text = perfmodel("hw show h100-sxm").out
    assert "3.35 TB/s" in text


def test_hw_show_says_what_nobody_knows(perfmodel, tmp_path, monkeypatch):
    toy = 'base = "h100-sxm"\nname = "Toy"\n[power]\nidle = { unknown = "never published" }'
    (tmp_path / "gpus" / "acme").mkdir(parents=True)
    (tmp_path / "gpus" / "acme" / "toy.toml").write_text(toy)
    monkeypatch.setenv("PERFMODEL_HWDB", str(tmp_path))
    rows = {row["what"]: row for row in perfmodel("hw show toy --json").json()["values"]}
    assert rows["power.idle"]["value"] == "unknown: never published"
    assert rows["power.idle"]["kind"] == "unknown"
    assert "unknown: never published" in perfmodel("hw show toy").out


def test_hw_check_reports_counts_and_no_error(perfmodel):
    said = perfmodel("hw check")
    assert said.code == 0, said.out
    assert "records: " in said.out
    assert perfmodel("hw check --json").json()["records"]["gpus"] > 50


def test_model_ls(perfmodel):
    rows = perfmodel("model ls --json").json()
    assert len(rows) == len(preset.ids()) >= 60
    text = perfmodel("model ls").out
    for row in rows:
        assert row["model"] in text


@pytest.mark.parametrize(
    ("name", "parameters", "kv"),
    [
        ("meta-llama/Llama-3.1-8B", 8_030_261_248, 131_072),
        ("deepseek-ai/DeepSeek-V3", 671_026_419_200, 70_272),
    ],
)
def test_model_show(name, parameters, kv, perfmodel):
    shown = perfmodel(f"model show {name} --json").json()
    assert shown["parameters"] == parameters
    assert shown["kv_bytes_per_token"] == kv
    assert sum(run["count"] for run in shown["runs"]) == shown["layers"]
    assert f"{parameters:,}" in perfmodel(f"model show {name}").out
    halved = perfmodel(f"model show {name} --kv-cache-dtype fp8 --json").json()
    assert halved["kv_bytes_per_token"] == kv / 2


def test_model_show_every_preset(perfmodel):
    for name in preset.ids():
        shown = perfmodel(f"model show {name} --json").json()
        assert shown["model"] == name
        assert shown["parameters"] > 0


def test_techniques_ls(perfmodel):
    said = perfmodel("techniques ls --json")
    assert (said.code, isinstance(said.json(), list)) == (0, True)
    assert perfmodel("techniques ls").out.strip()


@pytest.mark.parametrize("line", ["", "--help", "--version", "hw", "model", "estimate --help",
                                  "explain --help", "hw show --help"])  # fmt: skip
def test_help_is_an_answer(line, perfmodel):
    said = perfmodel(line)
    assert said.code == 0
    assert said.out
    assert said.err == ""


def test_help_lists_the_exit_codes(perfmodel):
    text = " ".join(perfmodel("--help").out.split())
    for code in ("0 answer", "2 usage", "3 infeasible", "4 data missing", "5 outside", "1 bug"):
        assert code in text


# ---- a vendor's file with a key nobody knows -----------------------------------------------------


def test_unknown_config_keys_are_accepted_on_request(perfmodel, tmp_path):
    file = tmp_path / "config.json"
    shape = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 2, "vocab_size": 1000,
             "num_attention_heads": 32, "intermediate_size": 8192, "max_position_embeddings": 8192,
             "mystery": 3}  # fmt: skip
    file.write_text(json.dumps(shape))
    for line in (f"estimate --model {file} --gpu h100-sxm", f"model show {file}"):
        refused = perfmodel(line)
        assert refused.code == 2
        assert "unknown key 'mystery'" in refused.err
        assert "--ignore-key mystery" in refused.err
        assert perfmodel(f"{line} --ignore-key mystery").code == 0
