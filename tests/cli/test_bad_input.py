"""Bad input gets one line, what and where and what would be right, and the documented code."""

import json
import os
import re
from pathlib import Path

import pytest

GPU = """
base = "h100-sxm"
name = "Toy"
"""
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}
FILES = {
    "empty.json": "",
    "cut.json": json.dumps(LLAMA)[:-10],
    "words.json": "hidden_size is 64",
    "array.json": json.dumps([LLAMA]),
    "missing.json": json.dumps({k: v for k, v in LLAMA.items() if k != "hidden_size"}),
    "unknown.json": json.dumps(LLAMA | {"hidden_sise": 64}),
    "type.json": json.dumps(LLAMA | {"model_type": "lama"}),
    "string.json": json.dumps(LLAMA | {"hidden_size": "64"}),
    "nan.json": json.dumps(LLAMA | {"hidden_size": float("nan")}),
    "negative.json": json.dumps(LLAMA | {"num_hidden_layers": -2}),
    "binary.json": "\x00\x01",
    "good.json": json.dumps(LLAMA),
    "folder/weights.bin": "",
    "directory.json/keep": "",
    "unsure/gpus/acme/toy.toml": GPU + '[memory]\nbandwidth = { unknown = "unpublished" }',
    "idle/gpus/acme/toy.toml": GPU + '[power]\ntdp = { unknown = "unpublished" }',
    "broken/gpus/acme/toy.toml": "name = [",
    "wrong/gpus/acme/toy.toml": GPU + "memmory = 3",
    "baseless/gpus/acme/toy.toml": 'base = "h100-sxn"',
    "fabricless/gpus/acme/toy.toml": GPU + 'node = "toy-node"',
    "fabricless/nodes/toy-node.toml": 'base = "hgx-h100"\n[scale_up]\nfabric = "nvlink44"',
    "twice/gpus/acme/h100-sxm.toml": 'base = "h100-pcie"',
    "priced/prices/h200-nvl.toml": "offers = [",
}

E = "estimate --model meta-llama/Llama-3.1-8B --gpu h100-sxm"
ON = "estimate --model meta-llama/Llama-3.1-8B --gpu"
X = "explain tpot --model meta-llama/Llama-3.1-8B --gpu h100-sxm"
MOE = "estimate --model deepseek-ai/DeepSeek-V3 --gpu h200-sxm -tp 8"
OF = "estimate --gpu h100-sxm --model"
VLLM = "estimate --gpu h100-sxm --from-vllm"
TOY = "estimate --model meta-llama/Llama-3.1-8B --gpu toy"

# (command line, exit code, what the line must say); HWDB=folder sets PERFMODEL_HWDB
TABLE: list[tuple[str, int, tuple[str, ...]]] = [
    # names
    (f"{ON} h100-sxn", 2, ("'h100-sxn'", "h100-sxm", "hw ls gpus")),
    (f"{OF} Llama-3.1-8", 2, ("'Llama-3.1-8'", "meta-llama/Llama-3.1-8B", "model ls")),
    (f"{OF} meta-lama/Llama-3.1-8B", 2, ("meta-lama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B")),
    (f"{OF} ''", 2, ("model", "empty", "model ls")),
    (f"{E} --node hgx-h10", 2, ("'hgx-h10'", "hgx-h100", "hw ls nodes")),
    (f"{E} --calibration uncalibrate", 2, ("'uncalibrate'", "uncalibrated")),
    ("hw ls gpu", 2, ("'gpu'", "gpus", "cpus")),
    ("hw show h100-sxn", 2, ("'h100-sxn'", "h100-sxm")),
    ("hw show h100-sxm --kind gpu", 2, ("'gpu'", "gpus")),
    ("hw show hgx-h10 --kind nodes", 2, ("'hgx-h10'", "hgx-h100")),
    ("model show Llama-3.1-9B", 2, ("'Llama-3.1-9B'", "meta-llama/Llama-3.1-8B")),
    ("model show meta-llama/Llama-3.1-8B -q fp9", 2, ("'fp9'", "fp8")),
    (X.replace("tpot", "tpott"), 2, ("'tpott'", "tpot", "ttft")),
    (f"{X} --operator qkv_porj", 2, ("'qkv_porj'", "qkv_proj")),
    (f"{X} --detail tme", 2, ("'tme'", "time", "formula")),
    (f"{E} -q fp9", 2, ("'fp9'", "fp8", "nvfp4")),
    (f"{E} --dtype bfloat", 2, ("--dtype", "'bfloat'", "bfloat16")),
    (f"{E} --kv-cache-dtype fp9", 2, ("'fp9'", "fp8")),
    # flags and commands
    ("estimat", 2, ("estimat", "estimate")),
    (f"{E} --isll 5", 2, ("--isll", "--isl")),
    (f"{E} surplus", 2, ("surplus",)),
    (f"{E} --isl", 2, ("--isl", "argument")),
    (f"{E} --isl 5 --isl 6", 2, ("--isl", "multiple times")),
    ("estimate --gpu h100-sxm", 2, ("--model is missing",)),
    ("estimate --model meta-llama/Llama-3.1-8B", 2, ("--gpu is missing",)),
    (f"{E} --json --csv", 2, ("--json", "--csv", "not both")),
    (f"{E} --max-concurrency 4 --request-rate 2", 2, ("--max-concurrency", "--request-rate")),
    # numbers
    (f"{E} --isl -1", 2, ("--isl", "-1", "from 1")),
    (f"{E} --isl 0", 2, ("--isl", "0", "from 1")),
    (f"{E} --osl 0", 2, ("--osl", "from 1")),
    (f"{E} --isl nan", 2, ("--isl", "nan", "finite")),
    (f"{E} --osl inf", 2, ("--osl", "inf", "finite")),
    (f"{E} --isl long", 2, ("--isl", "long", "float")),
    (f"{E} --isl 10.5", 2, ("--isl", "10.5", "whole number")),
    (f"{E} --isl 1e9", 2, ("--isl", "1e+08")),
    (f"{E} --prefix 1024", 2, ("--prefix", "1024", "shorter than --isl")),
    (f"{E} --prefix -1", 2, ("--prefix", "from 0")),
    (f"{E} --max-concurrency 0", 2, ("--max-concurrency", "from 1")),
    (f"{E} --max-concurrency 1.5", 2, ("--max-concurrency", "whole number")),
    (f"{E} --request-rate 0", 2, ("--request-rate", "1e-09")),
    (f"{E} --request-rate -3", 2, ("--request-rate", "-3")),
    (f"{E} --price -1", 2, ("--price", "-1", "from 0")),
    (f"{E} --gpu-memory-utilization 90", 2, ("--gpu-memory-utilization", "90", "to 1")),
    (f"{E} -tp 0", 2, ("--tensor-parallel-size", "from 1")),
    (f"{E} -tp 2.5", 2, ("--tensor-parallel-size", "whole number")),
    (f"{E} --num-gpus 0", 2, ("--num-gpus", "from 1")),
    (f"{E} --block-size 0", 2, ("--block-size", "from 1")),
    # overrides
    (f"{E} --set gpu.memory.bandwidth", 2, ("gpu.memory.bandwidth", "PATH=VALUE")),
    (f"{E} --set gpu.memory.bandwidth=", 2, ("gpu.memory.bandwidth", "PATH=VALUE")),
    (f"{E} --set gpu.memory.bandwidht='6 TB/s'", 2, ("memory.bandwidht", "memory.bandwidth")),
    (f"{E} --set cpu.cores=4", 2, ("cpu.cores", "gpu.", "node.", "calibration.")),
    (f"{E} --set gpu=3", 2, ("gpu", "node.", "calibration.")),
    (f"{E} --set gpu.memory.bandwidth='6 W'", 2, ("gpu.memory.bandwidth", "'6 W'", "TB/s")),
    (f"{E} --set gpu.memory.bandwidth=6", 2, ("gpu.memory.bandwidth", "'6'", "TB/s")),
    (f"{E} --set gpu.memory.bandwidth='6 TB/z'", 2, ("'TB/z'", "TB/s")),
    (f"{E} --set gpu.memory.bandwidth=fast", 2, ("'fast'", "number and a unit")),
    (f"{E} --set gpu.memory.bandwidth='0 TB/s'", 2, ("0 TB/s", "above zero")),
    (f"{E} --set gpu.memory.bandwidth='-3 TB/s'", 2, ("-3 TB/s", "above zero")),
    (f"{E} --set calibration.step_overhead='-1 ms'", 2, ("-1 ms", "not negative")),
    (f"{E} --set calibration.link=0 -tp 2", 2, ("calibration.link", "above zero")),
    # the answer is no
    (f"{E} -tp 3", 3, ("tp=3", "32 attention heads", "1, 2, 4, 8, 16, 32")),
    (f"{E} -ep 2", 3, ("ep=2", "no experts", "ep=1")),
    (f"{MOE} -ep 3", 3, ("ep=3", "256 experts", "ep of 1, 2, 4")),
    (f"{MOE} -ep 16", 3, ("ep=16", "tp x dp x cp = 8")),
    (f"{E} -pp 33", 3, ("pp=33", "32 layers", "pp up to 32")),
    (f"{E} -tp 4 --num-gpus 6", 3, ("--num-gpus 6", "4 GPUs", "multiple")),
    (f"{ON} a100-sxm-80gb -q fp8", 3, ("a100-sxm-80gb", "no fp8", "int8", "fp8_wo")),
    (f"{ON} h100-sxm -q nvfp4", 3, ("h100-sxm", "no fp4", "--quantization awq")),
    (f"{ON} h100-sxm -q int4", 3, ("h100-sxm", "no int4", "--quantization awq")),
    (f"{ON} v100-sxm2 -q int8", 3, ("v100-sxm2", "no int8", "fp16")),
    (
        f"{OF} meta-llama/Llama-3.1-70B",
        3,
        (r"needs 1\d\d.\d GB", r"has 7\d.\d GB usable", r"-tp \d$"),
    ),
    (f"{E} --isl 200000", 3, ("200256 tokens", "131072")),
    (f"{E} --max-model-len 1000", 3, ("1280 tokens", "1000")),
    (f"{E} --request-rate 1000", 3, ("1000 requests/s", "--num-gpus", "--request-rate")),
    (f"{E} --request-rate 1000 --json", 3, ("1000 requests/s", "grows without bound")),
    (f"{X} -tp 3", 3, ("tp=3", "1, 2, 4, 8, 16, 32")),
    (f"{X} --request-rate 1000 --json", 3, ("1000 requests/s",)),
    # data missing, validity
    (f"HWDB=unsure {TOY}", 4, ("toy", "--set gpu.memory.bandwidth=", "unpublished")),
    (f"HWDB=unsure {X} --gpu toy".replace(" --gpu h100-sxm", ""), 4, ("gpu.memory.bandwidth",)),
    (f"HWDB=idle explain power{X[12:]}".replace("h100-sxm", "toy"), 4, ("--set gpu.power.tdp=",)),
    (f"{E} --strict", 5, ("uncalibrated",)),
    # config.json
    (f"{OF} absent.json", 2, ("absent.json", "no such file", "config.json")),
    (f"{OF} empty.json", 2, ("empty.json", "not valid JSON", "line 1")),
    (f"{OF} cut.json", 2, ("cut.json", "not valid JSON", "column")),
    (f"{OF} words.json", 2, ("words.json", "not valid JSON")),
    (f"{OF} binary.json", 2, ("binary.json", "not valid JSON")),
    (f"{OF} array.json", 2, ("array.json", "list", "JSON object")),
    (f"{OF} missing.json", 2, ("missing.json", "missing key 'hidden_size'")),
    (f"{OF} unknown.json", 2, ("unknown.json", "'hidden_sise'", "hidden_size")),
    (f"{OF} type.json", 2, ("type.json", "'lama'", "llama")),
    (f"{OF} string.json", 2, ("string.json", "hidden_size", "'64'", "whole number")),
    (f"{OF} nan.json", 2, ("nan.json", "hidden_size", "nan")),
    (f"{OF} negative.json", 2, ("negative.json", "num_hidden_layers", "-2")),
    (f"{OF} folder", 2, ("folder/config.json",)),
    (f"{OF} directory.json", 2, ("directory.json/config.json",)),
    ("model show array.json", 2, ("array.json", "JSON object")),
    # the hardware database
    (f"HWDB=broken {TOY}", 2, ("broken/gpus/acme/toy.toml",)),
    ("HWDB=broken hw ls", 2, ("broken/gpus/acme/toy.toml",)),
    ("HWDB=broken hw show toy", 2, ("broken/gpus/acme/toy.toml",)),
    (f"HWDB=wrong {TOY}", 2, ("toy.toml", "memmory", "unknown key")),
    (f"HWDB=baseless {TOY}", 2, ("baseless/gpus/acme/toy.toml", "'h100-sxn'", "no such base")),
    (f"HWDB=fabricless {TOY}", 2, ("'nvlink44'", "nvlink4", "hw ls fabrics")),
    (f"HWDB=nowhere {E}", 2, ("PERFMODEL_HWDB=nowhere", "not a folder")),
    ("HWDB=nowhere hw ls", 2, ("PERFMODEL_HWDB=nowhere", "not a folder")),
    ("HWDB=good.json hw show h100-sxm", 2, ("PERFMODEL_HWDB=good.json", "not a folder")),
    (f"HWDB=twice {E}", 2, ("twice/gpus/acme", "nvidia", "same id 'h100-sxm'")),
    ("HWDB=twice hw ls", 2, ("twice/gpus/acme", "same id 'h100-sxm'")),
    (f"HWDB=priced {ON} h200-nvl", 2, ("priced/prices/h200-nvl.toml",)),
    # vLLM lines
    (f"{VLLM} 'python serve.py'", 2, ("--from-vllm", "vllm serve")),
    (f"{VLLM} ''", 2, ("--from-vllm", "vllm serve")),
    (f"{VLLM} 'vllm serve'", 2, ("--model is missing",)),
    (f'{VLLM} "vllm serve \'Qwen/Qwen3-32B"', 2, ("--from-vllm", "quotation")),
    (f"{VLLM} 'vllm serve Qwen/Qwen3-32B -tp two'", 2, ("-tp", "'two'", "not a number")),
    (f"{VLLM} 'vllm serve Qwen/Qwen3-32B -tp'", 2, ("-tp", "no value")),
    (f"{VLLM} 'vllm serve Qwen/Qwen3-32B -tp nan'", 2, ("--tensor-parallel-size", "nan")),
    # output files
    (f"{E} -o absent/answer.json", 2, ("absent/answer.json", "No such file")),
    (f"{E} -o answer.xml", 2, ("answer.xml", "'.xml'", ".json, .csv, .txt")),
    (f"{E} -o folder", 2, ("folder", ".json, .csv, .txt")),
    (f"{E} -o directory.json", 2, ("directory.json", "directory")),
    (f"{E} -o good.json/answer.json", 2, ("good.json/answer.json", "Not a directory")),
    (f"{X} -o chain.csv", 2, ("chain.csv", ".json or .txt")),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, full of slips."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listing(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize(("line", "code", "says"), TABLE, ids=[row[0] for row in TABLE])
def test_one_line_and_its_code(line, code, says, folder, perfmodel, monkeypatch):
    if line.startswith("HWDB="):
        setting, line = line.split(" ", 1)
        monkeypatch.setenv("PERFMODEL_HWDB", setting.removeprefix("HWDB="))
    before = listing(folder)
    said = perfmodel(line)
    complaint = [row for row in said.err.splitlines() if not row.startswith("note: ")]
    assert said.code == code
    assert len(complaint) == 1, said.err
    assert complaint[0].startswith("infeasible: " if code == 3 else "perfmodel: ")
    for fragment in says:
        assert fragment in complaint[0] or re.search(fragment, complaint[0]), complaint[0]
    assert "Traceback" not in said.out + said.err
    assert listing(folder) == before  # neither a half-written file nor a temporary one
    if code == 3:
        assert said.out  # "no" is an answer: memory and reason are shown
        if "--json" in line:
            assert said.json()["results"]["feasible"] is False
    else:
        assert said.out == ""


def test_every_documented_code_that_needs_no_device_is_in_the_table():
    assert {code for _, code, _ in TABLE} == {2, 3, 4, 5}
    assert len({line for line, _, _ in TABLE}) == len(TABLE) >= 45


def test_a_huge_file_is_refused_unread(folder, perfmodel, monkeypatch):
    huge = folder / "model.json"
    huge.touch()
    os.truncate(huge, 2 * 2**30)  # sparse: weights given in place of the configuration
    read = Path.read_text

    def read_text(path, *args, **kwargs):
        assert path.name != huge.name
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    said = perfmodel(f"{OF} model.json")
    assert said.code == 2
    assert "2,147,483,648 bytes" in said.err
    assert "config.json" in said.err


def test_an_unknown_hardware_file_elsewhere_does_not_disturb(folder, perfmodel, monkeypatch):
    monkeypatch.setenv("PERFMODEL_HWDB", "broken")
    said = perfmodel(E)
    assert (said.code, said.err) == (0, "")


def test_the_database_lint_names_the_broken_file(folder, perfmodel, monkeypatch):
    monkeypatch.setenv("PERFMODEL_HWDB", "broken")
    said = perfmodel("hw check")
    assert said.code == 4
    assert "broken/gpus/acme/toy.toml" in said.out


def test_no_price_is_null_and_a_note(folder, perfmodel, monkeypatch):
    monkeypatch.setenv("PERFMODEL_HWDB", "idle")
    said = perfmodel(f"{TOY} --json")
    assert said.code == 0
    results = said.json()["results"]
    assert results["cost_per_mtok"] is None
    assert results["cost_per_mtok_total"] is None
    assert results["tpot_ms"] > 0
    assert "note: no offer for toy in the database; give --price" in said.err


def test_no_power_limit_is_null_and_a_note(folder, perfmodel, monkeypatch):
    monkeypatch.setenv("PERFMODEL_HWDB", "idle")
    said = perfmodel(f"{TOY} --price 2 --json")
    assert said.code == 0
    assert said.json()["results"]["power_w"] is None
    assert said.json()["results"]["energy_per_token_j"] is None
    assert "--set gpu.power.tdp=" in said.err


def test_the_hint_about_an_unknown_fact_works(folder, perfmodel, monkeypatch):
    monkeypatch.setenv("PERFMODEL_HWDB", "unsure")
    hint = re.search(r"--set (\S+)=VALUE", perfmodel(TOY).err)
    assert hint is not None
    assert perfmodel(f"{TOY} --set {hint[1]}='3 TB/s'").code == 0


@pytest.mark.parametrize(
    ("line", "nearest", "better"),
    [
        (f"{E} -tp 3", "tp of 1, 2,", f"{E} -tp 2"),
        (f"{E} -tp 4 --num-gpus 6", "a multiple", f"{E} -tp 4 --num-gpus 8"),
        (f"{ON} h100-sxm -q nvfp4", "--quantization awq", f"{ON} h100-sxm -q awq"),
        (f"{ON} a100-sxm-80gb -q fp8", "--quantization fp8_wo", f"{ON} a100-sxm-80gb -q fp8_wo"),
        (f"{E} --isl 200000", "at most 131072 tokens", f"{E} --isl 131071 --osl 1"),
        (f"{E} --request-rate 1000", "more replicas", f"{E} --request-rate 1000 --num-gpus 64"),
    ],
)
def test_the_nearest_feasible_change_is_feasible(line, nearest, better, perfmodel):
    assert f"nearest: {nearest}" in perfmodel(line).err
    assert perfmodel(better).code == 0


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-70B", "deepseek-ai/DeepSeek-V3"])
def test_the_smallest_layout_that_fits_fits_and_half_of_it_does_not(model, perfmodel):
    found = re.search(r"nearest: -tp (\d+)$", perfmodel(f"{OF} {model}").err)
    assert found is not None
    assert perfmodel(f"{OF} {model} -tp {found[1]}").code == 0
    assert perfmodel(f"{OF} {model} -tp {int(found[1]) // 2}").code == 3
