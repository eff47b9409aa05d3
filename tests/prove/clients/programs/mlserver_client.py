"""What MLServer's codecs and command see of the service at the URL that it is given, as JSON."""

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from mlserver.codecs import NumpyCodec, StringCodec, StringRequestCodec
from mlserver.types import (
    InferenceErrorResponse,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    RequestOutput,
)

URL = sys.argv[1]
TEXTS = ["A wonderful, moving film.", "Dull, endless and badly acted."]


def get(path):
    with urllib.request.urlopen(URL + path, timeout=30) as reply:
        return reply.read()


def infer(request):
    body = request.model_dump_json().encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{URL}/v2/models/v2/infer", body, headers)
    with urllib.request.urlopen(asked, timeout=30) as reply:
        answer = InferenceResponse.model_validate_json(reply.read())
    return {
        output.name: StringCodec.decode_output(output)
        if output.datatype == "BYTES"
        else NumpyCodec.decode_output(output).tolist()
        for output in answer.outputs
    }


def refusal(request):
    try:
        infer(request)
    except urllib.error.HTTPError as error:
        return [error.code, InferenceErrorResponse.model_validate_json(error.read()).error]
    return None


def tensor(texts, name="text"):
    return StringCodec.encode_input(name, texts, use_bytes=False)


def command():
    """Let `mlserver infer` classify a file of requests; the labels in its file of replies."""
    with tempfile.TemporaryDirectory() as folder:
        requests, replies = Path(folder) / "requests.jsonl", Path(folder) / "replies.jsonl"
        made = [InferenceRequest(inputs=[tensor([text])]) for text in TEXTS]
        lines = [request.model_dump_json(exclude_none=True) for request in made]
        requests.write_text("\n".join(lines) + "\n")
        subprocess.run(
            [
                *(Path(sys.executable).with_name("mlserver"), "infer"),
                *("--url", URL.removeprefix("http://"), "--model-name", "v2"),
                *("--input-data-path", requests, "--output-data-path", replies),
            ],
            check=True,
            stdout=sys.stderr,
        )
        rows = [json.loads(line) for line in replies.read_text().splitlines()]
    rows.sort(key=lambda row: row["parameters"]["batch_index"])
    return [
        next(output for output in row["outputs"] if output["name"] == "label")["data"][0]
        for row in rows
    ]


server = MetadataServerResponse.model_validate_json(get("/v2"))
model = MetadataModelResponse.model_validate_json(get("/v2/models/v2"))
by_codec = StringRequestCodec.encode_request(TEXTS, use_bytes=False)
by_codec.inputs[0].name = model.inputs[0].name
seen = {
    "server": server.name,
    "model": [model.name, [item.name for item in model.inputs]],
    "json": infer(InferenceRequest(inputs=[tensor(TEXTS)])),
    "codec": infer(by_codec)["label"],
    "label": infer(InferenceRequest(inputs=[tensor(TEXTS)], outputs=[RequestOutput(name="label")])),
    "batch": len(infer(InferenceRequest(inputs=[tensor(TEXTS * 50)]))["label"]),
    "blank": refusal(InferenceRequest(inputs=[tensor([" "])])),
    "name": refusal(InferenceRequest(inputs=[tensor(TEXTS, "input-1")])),
    "command": command(),
}
print(json.dumps(seen))
