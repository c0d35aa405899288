"""Sleeps for a number of milliseconds, or until its client has left."""

import time

import triton_python_backend_utils as triton


class TritonPythonModel:
    def execute(self, requests):
        return [sleep(request) for request in requests]


def sleep(request):
    millis = triton.get_input_tensor_by_name(request, "millis").as_numpy()
    end = time.monotonic() + float(millis[0]) / 1000
    while time.monotonic() < end:
        if request.is_cancelled():
            error = triton.TritonError("cancelled", triton.TritonError.CANCELLED)
            return triton.InferenceResponse(error=error)
        time.sleep(0.001)
    return triton.InferenceResponse([triton.Tensor("millis", millis)])
