"""What SageMaker's Predictor, in its local mode, sees of the service at the URL, as JSON."""

import json
import os
import sys

os.environ |= {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SECRET_ACCESS_KEY": "none",
}

from sagemaker.deserializers import CSVDeserializer, JSONDeserializer, JSONLinesDeserializer
from sagemaker.local import LocalSession
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer, JSONLinesSerializer, JSONSerializer

URL = sys.argv[1]
TEXTS = ["A wonderful, moving film.", "Dull, endless and badly acted."]
session = LocalSession()
session.config = {"local": {"serving_port": int(URL.rpartition(":")[2])}}


def predict(data, serializer, deserializer):
    predictor = Predictor(
        "sentiment", sagemaker_session=session, serializer=serializer, deserializer=deserializer
    )
    return predictor.predict(data)


def predict_json(data):
    return predict(data, JSONSerializer(), JSONDeserializer())


seen = {
    "inputs": predict_json({"inputs": TEXTS, "params": {"version": "v2"}})["predictions"],
    "instances": predict_json({"instances": TEXTS})["predictions"],
    "csv": predict([[text] for text in TEXTS], CSVSerializer(), CSVDeserializer()),
    "lines": predict(
        [{"inputs": text} for text in TEXTS], JSONLinesSerializer(), JSONLinesDeserializer()
    ),
    "batch": len(predict_json({"inputs": TEXTS * 50})["predictions"]),
    # The local mode gives the body of an error as an answer.
    "blank": predict_json({"inputs": " "})["detail"],
}
print(json.dumps(seen))
