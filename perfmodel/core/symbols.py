"""The nomenclature, which is also the user interface: one row per quantity.

A row gives the one legal name, its LaTeX symbol, SI unit, meaning, and the range in which it is
legal. Formula parameters must be rows; command-line help, sliders, column labels and Hypothesis
strategies read the same rows. ``step`` is what one notch of a slider does: ``x2`` doubles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Symbol:
    """One quantity of the nomenclature.

    ``low`` and ``high`` bound legal values in SI; ``whole`` quantities are integers.
    """

    name: str
    latex: str
    unit: str
    meaning: str
    low: float = 0.0
    high: float = 1e18
    step: str = ""
    whole: bool = False


def _count(
    name: str, latex: str, meaning: str, high: float = 1e9, low: float = 1, step: str = ""
) -> Symbol:
    return Symbol(name, latex, "1", meaning, low, high, step, whole=True)


def _share(name: str, latex: str, meaning: str, low: float = 1e-3) -> Symbol:
    return Symbol(name, latex, "1", meaning, low, 1.0, "0.05")


_ROWS: Final = (
    # workload
    _count("isl", r"I", "input sequence length: prompt tokens of a request", 1e8, step="x2"),
    _count("osl", r"O", "output sequence length: generated tokens of a request", 1e8, step="x2"),
    _count("prefix", r"I_{\text{hit}}", "prompt tokens found in the prefix cache", 1e8, 0, "x2"),
    _count("concurrency", r"C", "requests in flight (closed loop)", 1e7, step="x2"),
    Symbol("request_rate", r"\lambda", "1/s", "requests per second", 1e-9, 1e9, "x2"),
    _count("max_num_seqs", r"B_{\max}", "most sequences an engine runs at once", 1e7, step="x2"),
    _count("budget", r"T_{\max}", "token budget of one step", 1e8, step="x2"),
    _count("context", r"L_{\max}", "longest sequence the engine accepts", 1e9, step="x2"),
    Symbol("prompt", r"I'", "1", "prompt tokens that must be computed", 1, 1e8),
    Symbol("decode_steps", r"D", "1", "output tokens of a request after the first", 1e-9, 1e8),
    # a step
    Symbol("rows", r"T", "1", "tokens an operator is applied to", 0, 1e9),
    Symbol("seqs", r"n", "1", "sequences of a token group", 0, 1e7),
    Symbol("new", r"q", "1", "new tokens per sequence", 0, 1e8),
    Symbol("past", r"p", "1", "cached tokens per sequence", 0, 1e8),
    Symbol("pairs", r"N_{qk}", "1", "query-key pairs per sequence and head", 0, 1e16),
    Symbol("keys", r"S", "1", "cached tokens read per sequence", 0, 1e8),
    Symbol("window", r"w", "1", "tokens a query may look back, itself included", 1, 1e8),
    Symbol("tokens", r"L", "1", "tokens of a sequence", 0, 1e8),
    # shapes
    Symbol("hidden", r"h", "1", "width of the residual stream", 1, 1e6),
    Symbol("inner", r"K", "1", "input width of a matrix", 0, 1e9),
    Symbol("cols", r"N", "1", "output width of a matrix", 0, 1e9),
    Symbol("kernel", r"\kappa", "1", "taps of a convolution along one side", 1, 1e3),
    Symbol("groups", r"G", "1", "channel groups of a convolution", 1, 1e6),
    Symbol("heads", r"n_h", "1", "attention heads", 1, 1e5),
    Symbol("score_dim", r"d_{qk}", "1", "width of a head's query and key", 1, 1e5),
    Symbol("value_dim", r"d_v", "1", "width of a head's value", 1, 1e5),
    Symbol("index_heads", r"n_I", "1", "heads of the sparse-attention indexer", 1, 1e4),
    Symbol("index_dim", r"d_I", "1", "width of the indexer's head", 1, 1e4),
    Symbol("state", r"N_s", "1", "elements of a recurrent state", 0, 1e12),
    Symbol("experts", r"E", "1", "routed experts of a layer", 2, 1e5),
    Symbol("top_k", r"k", "1", "experts a token is sent to", 1, 1e3),
    Symbol("distinct", r"E_{\text{act}}", "1", "different experts a step touches", 0, 1e5),
    Symbol("imbalance", r"\iota", "1", "tokens of the heaviest rank over the mean", 1, 1e3, "0.1"),
    Symbol("vocab", r"V", "1", "vocabulary size", 0, 1e7),
    Symbol("size", r"s", "1", "size of a dimension", 0, 1e9),
    Symbol("units", r"u", "1", "indivisible granules of a dimension", 1, 1e9),
    Symbol("local_size", r"s_{\text{rank}}", "1", "size of a dimension on one rank", 0, 1e9),
    Symbol("layers", r"\ell", "1", "layers of the model", 1, 1e5),
    Symbol("local_layers", r"\ell_{\text{stage}}", "1", "layers of the deepest stage", 1, 1e5),
    Symbol("elements", r"P", "1", "parameters of a tensor class", 0, 1e15),
    Symbol("widest", r"h_{\max}", "1", "widest activation of a layer on one rank", 1, 1e7),
    # layout
    _count("tp", r"\mathrm{TP}", "tensor parallel size", 1e5, step="x2"),
    _count("pp", r"\mathrm{PP}", "pipeline parallel size", 1e4, step="x2"),
    _count("dp", r"\mathrm{DP}", "data parallel size (in MoE: of attention)", 1e5, step="x2"),
    _count("ep", r"\mathrm{EP}", "expert parallel size", 1e5, step="x2"),
    _count("cp", r"\mathrm{CP}", "context parallel size", 1e4, step="x2"),
    Symbol("moe_tp", r"\mathrm{TP}_E", "1", "ways each expert is cut", 1e-6, 1e5),
    _count("gpus", r"g", "GPUs of the deployment", 1e7, step="x2"),
    Symbol("group", r"g_c", "1", "ranks of a collective", 1, 1e6),
    # bytes, work, rates
    Symbol("weight_width", r"b_w", "B", "bytes per weight, scales included", 0.1, 8),
    Symbol("input_width", r"b_x", "B", "bytes per activation read", 0.1, 8),
    Symbol("output_width", r"b_y", "B", "bytes per activation written", 0.1, 8),
    Symbol("token_width", r"b_{kv}", "B", "cache bytes per token (or state element)", 0, 1e9),
    Symbol("ops_per_value", r"o", "1", "vector operations per value", 0, 1e3),
    Symbol("flops", r"F", "FLOP", "floating-point operations", 0, 1e24),
    Symbol("weight_bytes", r"Q_w", "B", "weights read"),
    Symbol("activation_bytes", r"Q_x", "B", "activations read and written"),
    Symbol("kv_bytes", r"Q_{kv}", "B", "cache read or written"),
    Symbol("state_bytes", r"Q_s", "B", "recurrent state of one sequence"),
    Symbol("traffic", r"Q", "B", "bytes moved to and from device memory"),
    Symbol("message", r"M", "B", "bytes of a collective's buffer"),
    Symbol("peak", r"\pi", "FLOP/s", "dense peak rate of the datapath", 1e6, 1e21, "x2"),
    Symbol("bandwidth", r"\beta", "B/s", "memory bandwidth", 1e6, 1e18, "x2"),
    Symbol("link", r"\beta_\ell", "B/s", "link bandwidth per direction", 1e3, 1e18, "x2"),
    Symbol("latency", r"\alpha", "s", "latency of one hop", 0, 1),
    _share("compute_efficiency", r"\eta_c", "achieved share of the peak rate"),
    _share("memory_efficiency", r"\eta_m", "achieved share of the memory bandwidth"),
    _share("link_efficiency", r"\eta_\ell", "achieved share of the link bandwidth"),
    Symbol("overhead", r"t_0", "s", "fixed cost of a kernel", 0, 1),
    Symbol("intensity", r"I_a", "FLOP/B", "arithmetic intensity"),
    Symbol("ridge", r"I^*", "FLOP/B", "ridge point of the roofline"),
    Symbol("compute_time", r"t_c", "s", "time of the compute side", 0, 1e9),
    Symbol("memory_time", r"t_m", "s", "time of the memory side", 0, 1e9),
    Symbol("kernel_time", r"t", "s", "time of a kernel", 0, 1e9),
    Symbol("collective_time", r"t_\ell", "s", "time of a collective", 0, 1e9),
    Symbol("alternative", r"t'_\ell", "s", "time of the same collective another way", 0, 1e9),
    Symbol("step_time", r"t_{\text{step}}", "s", "time of one engine step", 1e-9, 1e9),
    Symbol("busy_time", r"t_{\text{busy}}", "s", "time a resource needs at its full rate", 0, 1e9),
    # inside a kernel
    Symbol("tiles", r"n_t", "1", "output tiles of a matrix product, splits included", 0, 1e12),
    Symbol("slots", r"n_{\text{slot}}", "1", "tiles a device works on at once", 1, 1e6),
    Symbol("rounds", r"n_w", "1", "waves of tiles, the last one whole", 0, 1e12),
    Symbol("stalls", r"n'_w", "1", "waves whose latency nothing hides", 0, 1e12),
    Symbol("depth", r"d", "1", "inner elements a tile runs through, padded", 0, 1e9),
    Symbol("tile_rows", r"T_m", "1", "rows of an output tile", 1, 1e4),
    Symbol("tile_cols", r"T_n", "1", "columns of an output tile", 1, 1e4),
    Symbol("sms", r"n_{\text{SM}}", "1", "streaming multiprocessors", 1, 1e5),
    Symbol("feed_rate", r"\beta_{\text{SM}}", "B/s", "operand bytes one SM takes in", 1e6, 1e15),
    Symbol("step_latency", r"\tau_k", "s", "least time per element of depth", 0, 1),
    Symbol("between", r"Q_{\text{gap}}", "B", "bytes that went by since a buffer was last used"),
    Symbol("cache", r"C_{\text{L2}}", "B", "last-level cache", 1e3, 1e12),
    Symbol("weight_hot", r"\chi_w", "1", "share of the weights that L2 serves", 0, 1),
    Symbol("act_hot", r"\chi_x", "1", "share of the activations that L2 serves", 0, 1),
    Symbol("hot_share", r"\chi", "1", "share of a buffer that L2 serves", 0, 1),
    Symbol("cache_gain", r"\gamma_{\text{L2}}", "1", "bandwidth of L2 over that of memory", 1, 100),
    Symbol("feed_time", r"t_f", "s", "time to bring operands into the SMs", 0, 1e9),
    Symbol("quant_efficiency", r"\eta_q", "1", "bandwidth share of a quantising pass", 1e-3, 10),
    Symbol("quant_row", r"\tau_q", "s", "an SM's time for one quantised row", 0, 1),
    Symbol("pass_time", r"t_q", "s", "time of a pass before or after the product", 0, 1e9),
    Symbol("droop", r"\delta", "1", "slowing of the clock under sustained matrix load", 0, 10),
    Symbol("droop_time", r"t_\delta", "s", "how long a load takes to be sustained", 1e-9, 1e3),
    Symbol("slowing", r"\phi", "1", "factor by which multiplying slows", 1, 100),
    # memory
    Symbol("capacity", r"M_{\text{GPU}}", "B", "device memory", 1e6, 1e15, "x2"),
    _share("memory_utilization", r"u_M", "share of device memory the engine may take"),
    Symbol("weights", r"M_w", "B", "weights on one GPU"),
    Symbol("activations", r"M_x", "B", "activation peak on one GPU"),
    Symbol("reserve", r"M_r", "B", "graphs, communication buffers and runtime on one GPU"),
    Symbol("activation_peak", r"M_x", "B", "activation peak on one GPU"),
    Symbol("tensor_bytes", r"M_t", "B", "bytes of a tensor class"),
    _count("page", r"b", "tokens per cache page", 1e6, step="x2"),
    Symbol("sequence_bytes", r"M_{\text{seq}}", "B", "cache of one sequence", 1, 1e18),
    Symbol("kv_pool", r"M_{kv}", "B", "bytes left for the cache on one GPU"),
    Symbol("max_seqs", r"B_{kv}", "1", "sequences whose cache fits", 0, 1e12),
    # serving
    Symbol("users", r"N", "1", "requests the engine holds at once", 1, 1e7),
    Symbol("others", r"B'", "1", "other users' sequences decoding at once", 0, 1e7),
    _count("lanes", r"n_b", "batches that run at once: replicas, stages", 1e7),
    Symbol("running", r"B", "1", "sequences decoding at once", 0, 1e7),
    Symbol("chunk", r"c", "1", "prompt tokens in one mixed step", 1, 1e8),
    Symbol("waiting", r"N_p", "1", "requests whose prompt is not finished", 0, 1e7),
    Symbol("room", r"T_{\text{free}}", "1", "prompt tokens a full step has room for", 1, 1e8),
    Symbol("chunks_per_step", r"f", "1", "prompt chunks in a step, on average", 0, 1e8),
    Symbol("decode_time", r"t_d", "s", "time of a plain decode step", 0, 1e6),
    Symbol("mixed_time", r"t_x", "s", "time of a mixed step", 0, 1e6),
    Symbol("prefill_time", r"S", "s", "prefill latency of one prompt", 0, 1e6),
    Symbol("prefill_slot", r"s_p", "s", "time a prompt occupies the chunk budget", 0, 1e6),
    Symbol("residence", r"R", "s", "time in the prefill station, queueing included", 0, 1e9),
    Symbol("queue_time", r"W", "s", "wait before the first chunk", 0, 1e12),
    Symbol("ttft", r"\mathrm{TTFT}", "s", "time to first token, queueing included", 0, 1e12),
    Symbol("tpot", r"\mathrm{TPOT}", "s", "time per output token after the first", 0, 1e6),
    Symbol("e2el", r"\mathrm{E2E}", "s", "end-to-end latency", 0, 1e12),
    Symbol("throughput", r"X", "1/s", "output tokens per second of the deployment", 1e-12, 1e15),
    # queues
    _count("servers", r"m", "equal servers that share one queue", 1e7),
    Symbol("service_time", r"\bar x", "s", "mean time a request occupies a server", 0, 1e9),
    Symbol("service_cv2", r"C_{s}^{2}", "1", "squared coefficient of variation of service times",
           0, 1e6),
    Symbol("arrival_cv2", r"C_{a}^{2}", "1", "squared coefficient of variation of arrival gaps",
           0, 1e6),
    Symbol("blocking", r"P_b", "1", "share of arrivals that find all servers busy, if none wait",
           0, 1),
    Symbol("wait_probability", r"P_W", "1", "share of requests that wait", 0, 1),
    Symbol("tail", r"\epsilon", "1", "share of requests beyond a percentile", 1e-12, 1),
    # power and money
    Symbol("idle_power", r"P_0", "W", "power of an idle GPU", 0, 1e5),
    Symbol("tdp", r"P_{\max}", "W", "power limit of one GPU", 0, 1e5),
    Symbol("power", r"\bar P", "W", "mean power of one GPU", 0, 1e5),
    Symbol("utilisation", r"u", "1", "share of time a resource is busy", 0, 1),
    Symbol("compute_share", r"u_c", "1", "share of time the datapath is busy", 0, 1),
    Symbol("memory_share", r"u_m", "1", "share of time device memory is busy", 0, 1),
    Symbol("compute_weight", r"\omega_c", "1", "share of dynamic power drawn by compute", 0, 1),
    Symbol("memory_weight", r"\omega_m", "1", "share of dynamic power drawn by memory", 0, 1),
    Symbol("price", r"\$", "USD/s", "rent of one GPU", 0, 1),
    Symbol("cost_per_token", r"\$_{\text{tok}}", "USD", "cost of one output token", 0, 1e6),
    Symbol("energy_per_token", r"E_{\text{tok}}", "J", "energy of one output token", 0, 1e9),
)  # fmt: skip

SYMBOLS: Final[dict[str, Symbol]] = {row.name: row for row in _ROWS}
