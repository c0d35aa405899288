"""saxpy on the GPU with torch, in Triton's Python backend."""

import numpy
import torch
import triton_python_backend_utils as triton


class TritonPythonModel:
    def execute(self, requests):
        inputs = [[tensor(request, name) for request in requests] for name in ("a", "x", "y")]
        a, x, y = (torch.from_numpy(together(arrays)).cuda() for arrays in inputs)
        results = (a * x + y).cpu().numpy()
        return [triton.InferenceResponse([triton.Tensor("result", result)]) for result in results]


def tensor(request, name):
    return triton.get_input_tensor_by_name(request, name).as_numpy()


def together(arrays):
    return numpy.concatenate([array.reshape(1, -1) for array in arrays])
