"""FastAPI with orjson: `fastapi_server.py PORT`. The handler is no coroutine, so requests run on a pool of threads."""

import sys

import fastapi
import uvicorn

import saxpy

app = fastapi.FastAPI()


async def input_of(request: fastapi.Request):
    return saxpy.read(await request.body())


@app.post("/execute")
def execute(input=fastapi.Depends(input_of)):
    [result] = saxpy.run([input])
    return fastapi.Response(saxpy.write(result), media_type="application/json")


saxpy.prepare()
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
