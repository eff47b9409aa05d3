"""The Helm chart: rendered with many values, and installed by Helm's own library."""

from __future__ import annotations

import json
from typing import Any

import helm_python

from core.paths import ROOT
from tests.prove.cluster.api import Manifest, parse

CHART = ROOT / "deploy" / "helm" / "sentiment"
RELEASE = "sentiment"
Values = dict[str, Any]

PROXIES = {"FORWARDED_ALLOW_IPS": "10.0.0.0/8"}
BY_QUEUE: Values = {"monitoring": {"monitor": "pod"}, "runner": {"autoscaling": {"by": "queue"}}}
# Each is a way in which a team may install it.
VALUE_SETS: dict[str, Values] = {
    "as it is": {},
    "fixed replicas": {
        "api": {"autoscaling": {"by": "none"}, "replicas": 3},
        "runner": {"autoscaling": {"by": "none"}, "replicas": 4},
    },
    "KEDA by queue": BY_QUEUE,
    "KEDA for v2 alone": {
        "monitoring": {"monitor": "service"},
        "runner": {"versions": {"v2": {"autoscaling": {"by": "queue", "maxReplicas": 40}}}},
        "keda": {"authentication": "prometheus", "prometheus": "https://thanos.monitoring:9091"},
    },
    "everything of the Prometheus Operator": {
        "monitoring": {
            "monitor": "service",
            "labels": {"release": "kube-prometheus-stack"},
            "rules": {"enabled": True, "runbook": "https://wiki.example/sentiment"},
            "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Sentiment"}},
        }
    },
    "PodMonitor and rules without keys": {
        "monitoring": {"monitor": "pod", "authorization": False, "rules": {"enabled": True}},
        "config": {"ALLOW_ANONYMOUS": True},
    },
    "ingress with TLS": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "hosts": ["sentiment.example", "*.sentiment.example"],
            "tlsSecret": "sentiment-tls",
            "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
        },
        "config": {**PROXIES, "ALLOWED_HOSTS": "sentiment.example"},
    },
    "ingress below a path": {
        "ingress": {"enabled": True, "hosts": ["apps.example"], "path": "/sentiment"},
        "config": {**PROXIES, "PATH_PREFIX": "/sentiment"},
    },
    "Gateway of its own with TLS": {
        "gateway": {
            "enabled": True,
            "className": "envoy",
            "hosts": ["sentiment.example"],
            "tlsSecret": "sentiment-tls",
        },
        "config": PROXIES,
    },
    "Gateway of its own without TLS": {
        "gateway": {"enabled": True, "className": "envoy", "hosts": ["a.example", "b.example"]},
        "config": PROXIES,
    },
    "route at a shared Gateway": {
        "gateway": {
            "enabled": True,
            "hosts": ["sentiment.example"],
            "parentRefs": [{"name": "shared", "namespace": "infra", "sectionName": "https"}],
        },
        "config": PROXIES,
    },
    "PgBouncer, Redis with TLS, CAs": {
        "database": {
            "ports": [6432],
            "maxConnections": 1000,
            "ca": {"secret": "postgresql-ca", "key": "ca.crt"},
        },
        "redis": {"ports": [6380], "ca": {"secret": "redis-ca", "key": "tls.crt"}},
        "secrets": {
            "databaseUrl": {"name": "pooler", "key": "uri"},
            "migrationDatabaseUrl": {"name": "postgresql", "key": "uri"},
            "redisUrl": {"name": "redis", "key": "url"},
            "runnerKey": {"name": "runner", "key": "key"},
            "otherRunnerKey": {"name": "runner", "key": "next"},
            "apiKeys": {"name": "keys", "key": "api-keys", "asFile": True},
            "metricsKey": {"name": "keys", "key": "metrics"},
            "rolloutToken": "2026-11-27",
        },
        "api": {"autoscaling": {"maxReplicas": 20}},
    },
    "placement and identity": {
        "image": {
            "repository": "registry.example/sentiment",
            "digest": f"sha256:{'0' * 64}",
            "pullPolicy": "Always",
        },
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a"}},
        "api": {
            "priorityClassName": "system-cluster-critical",
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
            "annotations": {"reloader.stakater.com/auto": "true"},
            "podAnnotations": {"team": "language"},
            "storage": {"size": "20Gi", "className": "fast"},
            "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_HEADERS", "value": "a=b"}],
        },
        "runner": {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "amx", "operator": "Exists"}]}
                        ]
                    }
                }
            },
            "versions": {"v1": {"resources": {"limits": {"cpu": 4, "memory": "2Gi"}}}},
        },
        "config": {"LOG_MAX_BYTES": 10737418240, "AB_V2_PERCENT": 12.5, "MKLDNN_ENABLE": False},
    },
    "nothing that can be left out": {
        "serviceAccount": {"create": False, "name": "default"},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "migration": {"enabled": False},
    },
    "a claim to ship": {
        "ship": {"claim": "data-sentiment-4"},
        "database": {"ca": {"secret": "postgresql-ca"}},
    },
    "a claim to ship, and sinks": {
        "ship": {"claim": "data-sentiment-4"},
        "config": {
            "LOG_EVENTS_URL": "https://events.example/predictions",
            "LOG_PARQUET_URL": "s3://bucket/log",
            "LOG_SINK_MAX_PREDICTIONS": 500000,
        },
        "api": {
            "extraEnv": [
                {
                    "name": "LOG_EVENTS_TOKEN",
                    "valueFrom": {"secretKeyRef": {"name": "events", "key": "token"}},
                },
                {
                    "name": "LOG_HASH_KEY",
                    "valueFrom": {"secretKeyRef": {"name": "hashes", "key": "key"}},
                },
            ]
        },
        "networkPolicy": {"extraEgress": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
    },
    "another name": {"fullnameOverride": "reviews"},
}


def render(values: Values | None = None, *, namespace: str = "sentiment") -> list[Manifest]:
    """The objects of a release, hooks too, as `helm template` gives them."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values or {}, name=RELEASE, namespace=namespace)
    return [
        manifest
        for path, text in files.items()
        if path.endswith(".yaml")
        for manifest in parse(text)
    ]


def by_name(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    """The objects of some kinds."""
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] in kinds}


def lint(values: Values | None = None) -> list[str]:
    """The faults that Helm finds, beside its wish for an icon."""
    report = helm_python.lint(CHART, values or {}, strict=True)
    messages = [message for message in report["messages"] if message["severity"] > 1]
    return [json.dumps(message) for message in messages] + list(report["errors"])


def refusal(values: Values) -> str:
    """The sentence with which Helm refuses values; raises AssertionError if it takes them."""
    try:
        render(values)
    except helm_python.HelmError as error:
        return str(error)
    raise AssertionError(f"Helm takes {values}")
