"""mosec, which merges up to 64 requests: `mosec_server.py --port PORT`. Other processes read and write the documents."""

import mosec

import saxpy


class Read(mosec.Worker):
    def deserialize(self, data):
        return saxpy.read(data)

    def forward(self, data):
        return data


class Run(mosec.Worker):
    def __init__(self):
        super().__init__()
        saxpy.prepare()

    def forward(self, data):
        return saxpy.run(data)


class Write(mosec.Worker):
    def forward(self, data):
        return saxpy.write(data)

    def serialize(self, data):
        return data


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Read, num=3, route="/execute")
    server.append_worker(Run, max_batch_size=64, max_wait_time=1, route="/execute")
    server.append_worker(Write, num=3, route="/execute")
    server.run()
