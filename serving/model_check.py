"""Checks a version's model before the service loads it: its files, an engine, its answers."""

from __future__ import annotations

from bentoml.exceptions import NotFound

from core.paths import ROOT
from core.settings import Settings
from core.types import Version
from runners.chosen_model import chosen_model
from runners.integrity import differences
from runners.model_store import SavedModel, find_model, model_name


class ModelUnusable(RuntimeError):
    """A version has no model that this machine can serve; the message says what to do."""


def model_state(version: Version, settings: Settings) -> str:
    """Load the model that a version would serve; return its tag, engine and number of streams.

    Raises:
        ModelUnusable: there is none, its files are damaged, no engine runs, or its answers are
            wrong.
    """
    configured = settings.model_tag(version)
    choice = chosen_model(version, settings).read()
    model: SavedModel | None = None
    for tag in choice.tags(configured) if choice else [configured]:
        try:
            model = find_model(tag)
            break
        except NotFound as error:
            reason = str(error)
    if model is None:
        is_made = configured == f"{model_name(version)}:latest"
        if is_made and (ROOT / "models" / "starter").is_dir():
            return "not saved yet; `make serve` saves the starter model"
        raise ModelUnusable(reason)
    return f"{model.tag} on {_try_engine(model, settings)}"


def _try_engine(model: SavedModel, settings: Settings) -> str:
    # Imported here because it takes a second, which a wrong setting should not cost.
    from runners.classifier import Classifier
    from runners.cpu import usable_cpus
    from runners.engines.choice import EngineUnavailable, choose_engine
    from runners.golden_set import check, read_golden_set

    again = "import or save the model again"
    if damage := differences(model.folder, model.digests):
        raise ModelUnusable(f"the files of {model.tag} are damaged ({damage}); {again}")
    try:
        engine = choose_engine(
            model, settings.engine, streams=usable_cpus(), mkldnn=settings.mkldnn_enable
        )
        golden_set = read_golden_set(model.folder)
    except (EngineUnavailable, ValueError) as error:
        raise ModelUnusable(f"{error}; {again}") from error
    if golden_set and (wrong := check(Classifier(model, engine).infer, golden_set)):
        raise ModelUnusable(f"{model.tag} on {engine.name}: {wrong}; {again}")
    return engine.name
