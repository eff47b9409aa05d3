"""LitServe, to measure ours against: batches of 32 as its documentation shows them.

One worker on the CPU, float32 on torch's default threads, unless other options are given; up to 32
requests are tokenised, padded and computed together. The same weights. No cache and no prediction
log: its worker would wait for them with the next batch, so both are left out, in its favour.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import litserve
import torch
import typer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from runners.cpu import usable_cpus

MAX_BATCH_SIZE = 32
# Longest wait for a batch to fill. With closed-loop clients a longer one only adds latency.
BATCH_TIMEOUT_SECONDS = 0.005
MAX_TOKENS = 512


# Without the package it is Any to mypy, with it it is not.
class SentimentApi(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    """POST /predict: `{"text"}` in, `{"sentiment", "confidence"}` out."""

    def __init__(self, folder: Path, dtype: torch.dtype, threads: int | None) -> None:
        super().__init__(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_SECONDS)
        self._folder, self._dtype, self._threads = folder, dtype, threads

    def setup(self, _device: str) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        self._tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(
            self._folder, local_files_only=True, dtype=self._dtype
        )
        self._model = model.eval()
        self._labels = [label.lower() for _, label in sorted(model.config.id2label.items())]

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def batch(self, inputs: list[str]) -> Any:
        return self._tokenizer(
            inputs, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )

    def predict(self, batch: Any) -> list[list[float]]:
        with torch.inference_mode():
            logits = self._model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits
        scores: list[list[float]] = logits.float().softmax(-1).tolist()
        return scores

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        return output

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        confidence = max(output)
        return {"sentiment": self._labels[output.index(confidence)], "confidence": confidence}


def main(
    *,
    model: Annotated[Path, typer.Option(help="folder of the checkpoint")],
    port: Annotated[int, typer.Option()],
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option()] = "float32",
    workers: Annotated[int, typer.Option(min=1, help="they share the cores")] = 1,
) -> None:
    threads = max(1, usable_cpus() // workers) if workers > 1 else None
    api = SentimentApi(model, getattr(torch, dtype), threads)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, timeout=60)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    typer.run(main)
