"""LitServe, which merges up to 64 requests: `litserve_server.py PORT`."""

import sys

import fastapi
import litserve

import saxpy


class Saxpy(litserve.LitAPI):
    def setup(self, device):
        saxpy.prepare()

    def decode_request(self, request):
        return request["input"]

    def batch(self, inputs):
        return inputs

    def predict(self, inputs):
        return saxpy.run(inputs)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return fastapi.Response(saxpy.write(output), media_type="application/json")


if __name__ == "__main__":
    api = Saxpy(max_batch_size=64, batch_timeout=0.001, api_path="/execute")
    server = litserve.LitServer(api, accelerator="cuda", devices=1)
    server.run(port=int(sys.argv[1]), log_level="warning", generate_client_file=False, access_log=False)
