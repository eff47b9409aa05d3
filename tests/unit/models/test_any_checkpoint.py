"""A checkpoint with any content in any file is served or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runners.model_store import InvalidCheckpoint
from tests.unit.checkpoints import import_checkpoint, tiny_checkpoint
from tests.unit.models.spoiling import (
    WEIGHTS,
    Spoil,
    edit,
    write,
)

pytestmark = pytest.mark.usefixtures("torch_imported")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2)
    ),
    max_leaves=3,
)
CONFIG_KEYS = (
    "activation", "architectures", "auto_map", "dim", "dropout", "hidden_dim", "id2label",
    "label2id", "max_position_embeddings", "model_type", "n_heads", "n_layers", "num_labels",
    "pad_token_id", "problem_type", "quantization_config", "tie_word_embeddings", "vocab_size",
)  # fmt: skip
TOKENIZER_KEYS = (
    "added_tokens", "model", "normalizer", "padding", "post_processor", "pre_tokenizer",
    "truncation", "version",
)  # fmt: skip
SETTINGS_KEYS = (
    "added_tokens_decoder", "cls_token", "do_lower_case", "extra_special_tokens",
    "model_max_length", "sep_token", "split_special_tokens", "tokenizer_class", "truncation_side",
)  # fmt: skip


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("intact"))


ENTRIES = st.one_of(
    st.tuples(st.just("config.json"), st.sampled_from(CONFIG_KEYS), JSON),
    st.tuples(st.just("tokenizer.json"), st.sampled_from(TOKENIZER_KEYS), JSON),
    st.tuples(st.just("tokenizer_config.json"), st.sampled_from(SETTINGS_KEYS), JSON),
).map(lambda entry: (entry[0], edit(entry[0], **{entry[1]: entry[2]})))
FILES = st.tuples(
    st.sampled_from(
        ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", WEIGHTS]
    ),
    JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40),
).map(lambda file: (file[0], write(*file)))


@given(change=ENTRIES | FILES)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_content_of_a_file_is_served_or_refused_in_one_line(
    model_store: Path, intact: Path, change: tuple[str, Spoil]
) -> None:
    name, spoil = change
    file = intact / name
    whole = file.read_bytes()
    try:
        spoil(intact)
        import_checkpoint(intact, "v1", {})
    except InvalidCheckpoint as error:
        assert str(error)
        assert "\n" not in str(error)
    finally:
        file.write_bytes(whole)


def test_files_of_a_checkpoint_may_be_read_only(model_store: Path, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    for path in folder.iterdir():
        path.chmod(0o400)
    folder.chmod(0o500)
    try:
        assert import_checkpoint(folder, "v1", {}).labels == ("negative", "positive")
    finally:
        folder.chmod(0o700)


def test_digits_of_json_are_compared_as_outputs(model_store: Path, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    path = folder / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"label2id": {"NEGATIVE": "0", "POSITIVE": "1"}}))
    assert import_checkpoint(folder, "v1", {}).labels == ("negative", "positive")
