"""Nodes and constants of an ONNX graph as they are added, and how its numbers are stored."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from rnntune.inference.product_codes import CodedRows
from rnntune.inference.quantize import QuantizedRows, quantize_rows

__all__ = ["FloatArray", "GraphBuilder", "Precision", "Tokens"]
_OPSET, _IR_VERSION = 17, 8  # read by onnxruntime 1.14 and later
FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision:
    """Bits of a stored number.

    Args:
        tables: of the rows of embeddings: 32, 8 or 4.
        matrices: of the weights of layers: 32 or 8.
    """

    tables: int = 32
    matrices: int = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """Names of the inputs in a graph.

    Args:
        ids: int64 (time, batch), unknown words behind the end of a row.
        trained: the same with unknown words for those that have a word vector alone.
        lengths: int64 (batch,), at least 1.
        mask: bool (time, batch), whether a row has a token here.
    """

    ids: str
    trained: str
    lengths: str
    mask: str


class GraphBuilder:
    """A graph as it grows.

    Args:
        precision: how its numbers are stored.

    Attributes:
        prefix: what names of constants begin with from here on.
    """

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.prefix = ""

    def number(self, value: int) -> str:
        """Add a whole number, int64 ()."""
        return self.constant(np.int64(value))

    def numbers(self, *values: int) -> str:
        """Add whole numbers, int64 (values,)."""
        return self.constant(np.array(values, dtype=np.int64))

    def constant(self, value: Any, name: str | None = None) -> str:
        """Add an array; gives its name, or that of an equal one that was added before."""
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        key = (str(array.dtype), array.shape, hashlib.blake2b(array.tobytes()).digest())
        if key not in self._shared:
            name = f"{self.prefix}{name}" if name else f"constant_{len(self._constants)}"
            self._constants.append(numpy_helper.from_array(array, name))
            self._shared[key] = name
        return self._shared[key]

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; gives the output's name."""
        output = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def add_pair(self, operator: str, inputs: Sequence[str], **attributes: Any) -> tuple[str, str]:
        """Add a node with two outputs; gives their names."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        pair = name, f"{name}_second"
        self._nodes.append(helper.make_node(operator, inputs, pair, **attributes))
        return pair

    def matrix(self, name: str, value: FloatArray) -> str:
        """Add the weights of a layer; a runtime works them out once, when it loads the model."""
        if self.precision.matrices == 32:
            return self.constant(value, name)
        return self._dequantized(quantize_rows(value, 8), name, lambda part: part)

    def take_rows(self, name: str, table: FloatArray, ids: str) -> str:
        """Rows of a table, float32 (*ids, dim)."""
        if self.precision.tables == 32:
            return self.add("Gather", self.constant(table, name), ids)
        rows = quantize_rows(table, self.precision.tables)
        return self._dequantized(rows, name, lambda part: self.add("Gather", part, ids))

    def take_coded(self, name: str, table: CodedRows, ids: str) -> str:
        """Rows of a table in pieces, float32 (*ids, dim)."""
        num_pieces, num_centers, _ = table.centers.shape
        codes = self.add("Gather", self.constant(table.codes, name), ids)
        first = np.arange(num_pieces, dtype=np.int64) * num_centers
        number = self.add("Cast", codes, to=TensorProto.INT64)
        number = self.add("Add", number, self.constant(first))  # (*ids, pieces)
        flat = table.centers.reshape(num_pieces * num_centers, -1)
        centers = self.constant(flat, f"{name}.centers")
        pieces = self.add("Cast", self.add("Gather", centers, number), to=TensorProto.FLOAT)
        shape = self.add("Concat", self.add("Shape", ids), self.numbers(-1), axis=0)
        return self.add("Reshape", pieces, shape)

    def bits(self, mask: npt.NDArray[np.bool_], name: str) -> str:
        """A mask as 0 and 1, int64 (len(mask),), stored as bits."""
        packed = self.constant(np.packbits(mask, bitorder="little")[:, None], name)
        number = self.add("Cast", packed, to=TensorProto.INT64)
        shifted = self.add("Div", number, self.constant(2 ** np.arange(8, dtype=np.int64)))
        unpacked = self.add("Mod", shifted, self.number(2))
        flat = self.add("Reshape", unpacked, self.numbers(-1))
        return self.add("Slice", flat, self.numbers(0), self.numbers(len(mask)))

    def _dequantized(self, rows: QuantizedRows, name: str, take: Callable[[str], str]) -> str:
        values = take(self.constant(rows.values, name))
        scales = self.add(
            "Cast", take(self.constant(rows.scales, f"{name}.scales")), to=TensorProto.FLOAT
        )
        scales = self.add("Mul", scales, self.constant(np.float32(rows.unit)))
        if rows.bits == 4:
            values = self._unpacked(values, rows.dim)
        return self.add("Mul", self.add("Cast", values, to=TensorProto.FLOAT), scales)

    def _unpacked(self, values: str, dim: int) -> str:
        """Two numbers a byte, the first half of the row in the low bits, as numbers."""
        number = self.add("Cast", values, to=TensorProto.FLOAT)
        sixteen = self.constant(np.float32(16))
        high = self.add("Floor", self.add("Div", number, sixteen))
        low = self.add("Sub", number, self.add("Mul", high, sixteen))
        both = self.add("Concat", low, high, axis=-1)
        bounds = [self.constant(np.array([n], dtype=np.int64)) for n in (0, dim, -1)]
        kept = self.add("Slice", both, *bounds)
        return self.add("Sub", kept, self.constant(np.float32(8)))

    def model(self, num_classes: int) -> onnx.ModelProto:
        """The finished model, checked."""
        graph = helper.make_graph(
            self._nodes,
            "rnntune",
            [
                helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "time"]),
                helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]),
            ],
            [
                helper.make_tensor_value_info(
                    "probabilities", TensorProto.FLOAT, ["batch", num_classes]
                )
            ],
            self._constants,
        )
        model = helper.make_model(
            graph,
            producer_name="rnntune",
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
        )
        onnx.checker.check_model(model)
        return model
