"""Checks a version's model before the service loads it: its files, an engine, its answers."""

from __future__ import annotations

from bentoml.exceptions import NotFound

from core.paths import ROOT
from core.settings import Settings
from core.types import Version
from runners.chosen_model import chosen_model
from runners.integrity import differences
from runners.model_store import SavedModel, candidates, find_model, is_newest


class _Unusable(RuntimeError):
    """A version has no model that this machine can serve; the message says what to do."""


def examine_model(version: Version, settings: Settings) -> tuple[str | None, str]:
    """Load the model that a version would serve: the problem with it, if any, and its state."""
    try:
        return None, _state(version, settings)
    except _Unusable as error:
        return str(error), ""


def _state(version: Version, settings: Settings) -> str:
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
        if is_newest(configured, version) and (ROOT / "models" / "starter").is_dir():
            return "not saved yet; `make serve` saves the starter model"
        raise _Unusable(reason)
    state = f"{model.tag} on {_try_engine(model, settings)}"
    if choice is None and (models := candidates(configured)) > 1:
        state += f", the newest of {models}: nothing says which served before"
    return state


def _try_engine(model: SavedModel, settings: Settings) -> str:
    # Imported here because it takes a second, which a wrong setting should not cost.
    from runners.classifier import Classifier
    from runners.cpu import usable_cpus
    from runners.engines.choice import EngineUnavailable, choose_engine
    from runners.engines.fastest import known_speeds
    from runners.golden_set import check, read_golden_set

    again = "import or save the model again"
    if damage := differences(model.folder, model.digests):
        raise _Unusable(f"the files of {model.tag} are damaged ({damage}); {again}")
    try:
        engine = choose_engine(
            model,
            settings.engine,
            streams=usable_cpus(),
            mkldnn=settings.mkldnn_enable,
            speeds=known_speeds(model, settings.data_folder),
        )
        golden_set = read_golden_set(model.folder)
    except (EngineUnavailable, ValueError) as error:
        raise _Unusable(f"{error}; {again}") from error
    if golden_set and (wrong := check(Classifier(model, engine).infer, golden_set)):
        raise _Unusable(f"{model.tag} on {engine.name}: {wrong}; {again}")
    return engine.name
