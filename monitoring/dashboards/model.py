"""What the models answer, and at what pace."""

from __future__ import annotations

from monitoring.dashboards.panels import Page, Panel, Query, mean, percentile, percentiles, rate

MODEL = Page(
    "sentiment-model",
    "Sentiment / models",
    {
        "Predictions": (
            Panel(
                "By version",
                "ops",
                [Query(rate("model_predictions_total", "version"), "{{version}}")],
            ),
            Panel(
                "Share of each sentiment",
                "percentunit",
                [
                    Query(
                        f"{rate('model_predictions_total', 'version, sentiment')} / on (version) "
                        f"group_left {rate('model_predictions_total', 'version')}",
                        "{{version}} {{sentiment}}",
                    )
                ],
            ),
            Panel(
                "Confidence",
                "percentunit",
                [
                    Query(percentile(0.5, "model_confidence", "version"), "{{version}} median"),
                    Query(percentile(0.1, "model_confidence", "version"), "{{version}} p10"),
                ],
            ),
            Panel(
                "Revisions that answer",
                "short",
                [
                    Query(
                        "max by (version, revision, engine) (model_revision_info) == 1",
                        "{{version}} {{revision}} {{engine}}",
                    )
                ],
            ),
        ),
        "Work": (
            Panel(
                "Time of a batch", "s", percentiles("model_inference_duration_seconds", "version")
            ),
            Panel(
                "Texts in a batch",
                "short",
                [Query(mean("model_batch_texts", "version"), "{{version}}")],
            ),
            Panel(
                "Tokens in a batch, padding included",
                "short",
                [Query(mean("model_batch_tokens", "version"), "{{version}}")],
            ),
            Panel(
                "Padding",
                "percentunit",
                [
                    Query(
                        f"""{rate('model_tokens_total{kind="padding"}', "version")} / """
                        f"{rate('model_tokens_total', 'version')}",
                        "{{version}}",
                    )
                ],
                "The share of the computed tokens that is for nothing",
            ),
            Panel(
                "Texts nobody waited for any more",
                "ops",
                [Query(rate("model_abandoned_texts_total", "version"), "{{version}}")],
            ),
            Panel(
                "Calls of a runner",
                "ops",
                [Query(rate("runner_calls_total", "version"), "{{version}}")],
            ),
        ),
        "Rollout": (
            Panel(
                "Share of the subjects",
                "percent",
                [Query("max by (version) (rollout_share_percent)", "{{version}}")],
                "Of /predict/ab",
            ),
            Panel(
                "Policy",
                "short",
                [
                    Query("max(rollout_policy_version)", "version"),
                    Query("max(rollout_policy_frozen)", "frozen"),
                    Query("max by (version) (model_change_refused)", "{{version}} refused"),
                ],
                "Who changed what: GET /admin/rollout/history",
            ),
            Panel(
                "Texts asked in the shadow",
                "ops",
                [Query(rate("shadow_texts_total", "outcome"), "{{outcome}}")],
                "Of the challenger, behind the back of /predict",
            ),
        ),
        "Whether anything has changed": (
            Panel(
                "Drift (PSI)",
                "short",
                [Query("max by (version, feature) (model_drift_psi)", "{{version}} {{feature}}")],
                "The last hour against the week before it; above 0.2 is significant",
            ),
            Panel(
                "Drift that would be noise",
                "short",
                [
                    Query(
                        "max by (version, feature) (model_drift_psi_noise)",
                        "{{version}} {{feature}}",
                    )
                ],
            ),
            Panel(
                "Texts that v1 and v2 agree on",
                "percentunit",
                [
                    Query(
                        'sum(increase(model_comparisons_total{agreement="agree"}[1h])) / '
                        "sum(increase(model_comparisons_total[1h]))",
                        "an hour",
                    )
                ],
                "Of /predict/ab-compare",
            ),
        ),
    },
)
