"""What ours is timed against. Each maker gives a function without arguments that runs one whole sequence.

All take the same `nn.LSTM` (or `SkimLSTM`) and input (T, 1, E) and start from zeros; a test holds them to the same
outputs.
"""

import os
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from skimrnn.errors import UserError
from skimrnn.kernels.reference import margin_at
from skimrnn.layers import SkimLSTM

Run = Callable[[], object]


class UnavailableError(UserError):
    """A competitor that cannot run here, and why."""


def numpy_lstm(lstm: nn.LSTM, inputs: Tensor) -> Run:
    """The paper's way, in NumPy: see `numpy_lstm_reader`."""
    return partial(numpy_lstm_reader(lstm), inputs)


def numpy_skim_lstm(layer: SkimLSTM, inputs: Tensor) -> Run:
    """The paper's way, in NumPy: see `numpy_skim_reader`."""
    return partial(numpy_skim_reader(layer), inputs)


def numpy_lstm_reader(lstm: nn.LSTM) -> Callable[[Tensor], np.ndarray]:
    """Reads texts (T, 1, E) as the paper did: one matrix-vector product of [x_t; h_{t-1}] a step. Outputs (T, D)."""
    _pin_numpy()
    cell = _numpy_weights(lstm, "")

    def read(inputs: Tensor) -> np.ndarray:
        h = c = np.zeros(lstm.hidden_size, np.float32)
        outputs = np.empty((len(inputs), len(h)), np.float32)
        for t, x in enumerate(inputs[:, 0].numpy()):
            h, c = _numpy_step(cell, np.concatenate([x, h]), c)
            outputs[t] = h
        return outputs

    return read


def numpy_skim_reader(layer: SkimLSTM) -> Callable[[Tensor], np.ndarray]:
    """The same for a Skim-LSTM: the decision from [x_t; h_{t-1}], then the chosen cell alone."""
    _pin_numpy()
    (weight, bias), big, small = (_numpy_weights(layer, prefix) for prefix in ("decision_", "", "small_"))
    size, margin = layer.small_size, margin_at(layer.threshold)

    def read(inputs: Tensor) -> np.ndarray:
        h = c = np.zeros(layer.hidden_size, np.float32)
        outputs = np.empty((len(inputs), len(h)), np.float32)
        for t, x in enumerate(inputs[:, 0].numpy()):
            both = np.concatenate([x, h])
            big_logit, small_logit = weight @ both + bias
            if not big_logit - small_logit <= margin:
                h, c = _numpy_step(big, both, c)
            elif size:
                small_h, small_c = _numpy_step(small, both, c[:size])
                h, c = np.concatenate([small_h, h[size:]]), np.concatenate([small_c, c[size:]])
            outputs[t] = h
        return outputs

    return read


def _pin_numpy() -> None:
    threads = torch.get_num_threads()
    if os.environ.get("OPENBLAS_NUM_THREADS") == str(threads):
        return
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise UnavailableError(f"set OPENBLAS_NUM_THREADS={threads}, or pip install threadpoolctl") from None
    threadpool_limits(threads, user_api="blas")


def cell_weights(layer: nn.LSTM | SkimLSTM, prefix: str) -> list[Tensor]:
    """The four tensors of one cell of a layer's first layer, by its prefix: none, `small_` or `decision_`."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return [layer.get_parameter(prefix + name).detach() for name in names]


def all_weights(layer: nn.LSTM | SkimLSTM) -> list[Tensor]:
    """Those of all cells, as the kernels take them."""
    prefixes = ("", "small_", "decision_") if isinstance(layer, SkimLSTM) else ("",)
    return [weight for prefix in prefixes for weight in cell_weights(layer, prefix)]


def _numpy_weights(layer: nn.LSTM | SkimLSTM, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights (rows, E + D) and biases (rows) of a cell, or of the decision."""
    *weights, bias_ih, bias_hh = (weight.numpy() for weight in cell_weights(layer, prefix))
    return np.concatenate(weights, axis=1), bias_ih + bias_hh


def _numpy_step(cell: tuple[np.ndarray, np.ndarray], both: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One LSTM step from [x; h] and the memory cell: new h and c, as long as c."""
    weight, bias = cell
    gates, size = weight @ both + bias, len(c)
    i, f, o = (1 / (1 + np.exp(-gates[k * size : (k + 1) * size])) for k in (0, 1, 3))
    new = f * c + i * np.tanh(gates[2 * size : 3 * size])
    return o * np.tanh(new), new


def torch_lstm(lstm: nn.LSTM, inputs: Tensor) -> Run:
    """`torch.nn.LSTM` as it is."""

    def run() -> object:
        with torch.no_grad():
            return lstm(inputs)[0]

    return run


def compiled_lstm(lstm: nn.LSTM, inputs: Tensor) -> Run:
    """`torch.compile` of a hand-written loop would take minutes at T = 300: the compiled module is timed."""
    compiled = torch.compile(lstm)

    def run() -> object:
        with torch.no_grad():
            return compiled(inputs)[0]

    try:
        run()
    except Exception as error:  # The compiler's own errors are of many types.
        raise UnavailableError(f"torch.compile: {error}") from error
    return run


def onnxruntime_lstm(lstm: nn.LSTM, inputs: Tensor) -> Run:
    """ONNX Runtime's LSTM operator, one thread as the others."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(f"ONNX Runtime cannot be imported ({error}): pip install onnx onnxruntime") from None

    def reorder(rows: Tensor) -> np.ndarray:
        i, f, g, o = rows.detach().chunk(4)
        return torch.cat([i, o, f, g])[None].numpy()  # ONNX's order of gates

    steps, _, width = inputs.shape
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    bias = np.concatenate(
        [reorder(lstm.get_parameter("bias_ih_l0")), reorder(lstm.get_parameter("bias_hh_l0"))], axis=1
    )
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], hidden_size=lstm.hidden_size)],
        "lstm",
        [helper.make_tensor_value_info("X", floats, [steps, 1, width])],
        [helper.make_tensor_value_info("Y", floats, [steps, 1, 1, lstm.hidden_size])],
        [
            onnx.numpy_helper.from_array(reorder(lstm.get_parameter("weight_ih_l0")), "W"),
            onnx.numpy_helper.from_array(reorder(lstm.get_parameter("weight_hh_l0")), "R"),
            onnx.numpy_helper.from_array(bias, "B"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"X": inputs.numpy()}

    def run() -> object:
        return session.run(["Y"], feed)[0][:, 0]

    return run


COMPETITORS: dict[str, Callable[[nn.LSTM, Tensor], Run]] = {
    "numpy": numpy_lstm,
    "torch": torch_lstm,
    "torch.compile": compiled_lstm,
    "onnxruntime": onnxruntime_lstm,
}
