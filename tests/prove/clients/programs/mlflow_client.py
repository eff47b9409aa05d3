"""What MLflow's scoring client sees of the service at the URL that it is given, as JSON."""

import json
import sys

import numpy as np
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

URL = sys.argv[1]
TEXTS = ["A wonderful, moving film.", "Dull, endless and badly acted."]
host, _, port = URL.removeprefix("http://").partition(":")
client = ScoringServerClient(host, int(port))


def predictions(data, **options):
    return client.invoke(data, **options).get_predictions().to_dict("list")


def refusal(data, **options):
    try:
        client.invoke(data, **options)
    except Exception as error:  # noqa: BLE001 - it raises no other
        return str(error)
    return None


client.wait_server_ready(timeout=30)
frame = pd.DataFrame({"text": TEXTS})
seen = {
    "frame": predictions(frame, params={"version": "v2"}),
    "labels": [
        predictions(data)["label"]
        for data in (
            frame.assign(id=[1, 2])[["id", "text"]],
            frame.set_index(pd.Index([0.5, 1.5])),
            frame.set_index(pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
            pd.DataFrame(TEXTS),
            np.array(TEXTS),
            TEXTS,
        )
    ],
    "batch": len(predictions(pd.concat([frame] * 50))["label"]),
    "blank": refusal(pd.DataFrame({"text": [" "]})),
    "columns": refusal(pd.DataFrame({"a": ["x"], "b": ["y"]})),
    "many": refusal(pd.concat([frame] * 51)),
    "params": refusal(frame, params={"temperature": 1}),
}
print(json.dumps(seen))
