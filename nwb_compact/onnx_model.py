"""A student as an ONNX model, from uint8 images to expected counts: what happens to an image before layer 1 is part of the graph.

Imported only when such a file is written: the package onnx is an extra.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nwb_compact.student import IMAGE_PX, N_LAYERS, STRIDES, border

OPSET, IR_VERSION = 17, 8
"""Of 2022, so that older runtimes read the files too."""
IMAGES, ANSWER = "images", "answer"
"""Names of the input, uint8 (image 112 112 3), and the output, float32 (image,)."""


def onnx_model(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The file's content, checked.

    Parameters
    ----------
    arrays
        Of one student, see `results.StudentWeights`; those in float16 stay so and are widened when the model is loaded.
    metadata
        Kept as the model's own properties.

    Examples
    --------
    >>> from nwb_compact.student import example_student
    >>> len(onnx_model(example_student().arrays, {"unit": "unit-1"})) // 1000  # kB, of which 11.7 are the student's 2,929 numbers
    13
    """
    graph = _Graph(arrays)
    images = helper.make_tensor_value_info(IMAGES, onnx.TensorProto.UINT8, ["image", IMAGE_PX, IMAGE_PX, 3])
    answer = helper.make_tensor_value_info(ANSWER, onnx.TensorProto.FLOAT, ["image"])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "student", [images], [answer], graph.weights), producer_name="nwb-compact",
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Graph:
    """Nodes and weights of a student, collected in the order of the work."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = arrays
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        maps = self._add("Transpose", self._add("Sub", self._cast(IMAGES), self._weight("input.mean")), perm=[0, 3, 1, 2])
        maps = self._rectified(maps, self._weight("layer1.kernel"), self._weight("layer1.bias"), pads=[2, 2, 2, 2])
        for layer in range(2, N_LAYERS + 1):
            depthwise, stride = f"layer{layer}.depthwise", STRIDES[layer - 1]
            before, after = border(stride)
            maps = self._add("Conv", maps, self._weight(depthwise, axes=(1,)), strides=[stride, stride],
                             pads=[before, before, after, after], group=len(self.arrays[depthwise]))
            maps = self._rectified(maps, self._weight(f"layer{layer}.pointwise", axes=(2, 3)), self._weight(f"layer{layer}.bias"))
        over_places = "readout.weight"
        if "readout.filter" in self.arrays:
            by_product = np.atleast_2d(self.arrays["readout.filter"].T)[:, :, None, None]
            maps, over_places = self._add("Conv", maps, self._stored("readout.filter", by_product)), "readout.space"
        summed = self._add("MatMul", self._add("Flatten", maps), self._weight(over_places, flat=True))  # of a matrix and a vector
        self._add("Add", summed, self._weight("readout.bias"), name=ANSWER)

    def _rectified(self, maps: str, weight: str, bias: str, **attributes: Any) -> str:
        return self._add("Relu", self._add("Conv", maps, weight, bias, **attributes))

    def _weight(self, name: str, *, axes: tuple[int, ...] = (), flat: bool = False) -> str:
        return self._stored(name, self.arrays[name].ravel() if flat else np.expand_dims(self.arrays[name], axes))

    def _stored(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name if value.dtype == np.float32 else self._cast(name)

    def _cast(self, name: str) -> str:
        return self._add("Cast", name, to=onnx.TensorProto.FLOAT)

    def _add(self, operation: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node, called after what it makes."""
        output = name or f"{operation.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output
