"""What KServe's own client sees of the service at the URL that it is given, as JSON."""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

URL = sys.argv[1]
TEXTS = ["A wonderful, moving film.", "Dull, endless and badly acted."]


def request(texts, model, *, binary):
    tensor = InferInput("text", [len(texts)], "BYTES", data=None if binary else texts)
    if binary:
        elements = np.array([text.encode() for text in texts], dtype=object)
        tensor.set_data_from_numpy(elements, binary_data=True)
    return InferRequest(model_name=model, infer_inputs=[tensor])


def outputs(reply):
    found = {}
    for output in reply.outputs:
        values = output.as_numpy().tolist()
        found[output.name] = [
            value.decode() if isinstance(value, bytes) else value for value in values
        ]
    return found


async def refusal(awaitable):
    try:
        await awaitable
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, str(error)]
    return None


async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=30)) as client:

        def ask(texts, model="v2", *, binary=False, **options):
            asked = request(texts, model, binary=binary)
            return client.infer(URL, asked, model_name=model, **options)

        seen = {
            "live": await client.is_server_live(URL),
            "ready": await client.is_server_ready(URL),
            "models": [await client.is_model_ready(URL, name) for name in ("v1", "v2", "v3")],
            "json": outputs(await ask(TEXTS)),
            "binary": outputs(await ask(TEXTS, binary=True)),
            "batch": len(outputs(await ask(TEXTS * 50))["label"]),
            "blank": await refusal(ask([" "])),
            "many": await refusal(ask(TEXTS * 51)),
            "unknown": await refusal(ask(TEXTS, "v3")),
        }
        try:
            await ask([f"{text} Or not?" for text in TEXTS * 50], timeout=0.001)
        except httpx.TimeoutException as error:
            seen["timeout"] = type(error).__name__
        seen["after"] = outputs(await ask(TEXTS))["label"]
    print(json.dumps(seen))


asyncio.run(main())
