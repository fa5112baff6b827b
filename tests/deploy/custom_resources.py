"""What of KEDA's and the Prometheus operator's resources our manifests use, as JSON schemas.

Their own schemas are larger than all of our manifests, and Kubernetes drops without a word what they do not know. Here
an unknown key is a mistake. Fields and kinds of values are from KEDA 2 (keda.sh/v1alpha1) and of the operator's
monitoring.coreos.com/v1.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_DURATION: Schema = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}


def _number(least: int, most: int | None = None) -> Schema:
    return {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most})}


def _several(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


def _resource(api: str, kind: str, spec: Schema) -> Schema:
    about = _object({"name": _TEXT}, {"labels": {"type": "object", "additionalProperties": _TEXT}})
    return _object({"apiVersion": {"const": api}, "kind": {"const": kind}, "metadata": about, "spec": spec})


_KEDA, _OPERATOR = "keda.sh/v1alpha1", "monitoring.coreos.com/v1"

_TRIGGER = _object(
    {
        "type": {"const": "postgresql"},
        # Texts, also where they are numbers: KEDA's are maps of strings.
        "metadata": _object(
            {"query": _TEXT, "targetQueryValue": {"type": "string", "pattern": "^[1-9][0-9]*$"}},
            {"activationTargetQueryValue": {"type": "string", "pattern": "^[0-9]+$"}},
        ),
        "authenticationRef": _object({"name": _TEXT}),
    }
)
_BEHAVIOR = _object({}, {"scaleDown": _object({}, {"stabilizationWindowSeconds": _number(0, 3600)})})
_SCALED_OBJECT = _object(
    {"scaleTargetRef": _object({"name": _TEXT}), "triggers": _several(_TRIGGER)},
    {
        "minReplicaCount": _number(0),
        "maxReplicaCount": _number(1),
        "pollingInterval": _number(1),
        "cooldownPeriod": _number(0),
        "advanced": _object({}, {"horizontalPodAutoscalerConfig": _object({}, {"behavior": _BEHAVIOR})}),
    },
)
_AUTHENTICATION = _object(
    {"secretTargetRef": _several(_object({"parameter": {"const": "connection"}, "name": _TEXT, "key": _TEXT}))}
)

_EXPRESSION = _object({"key": _TEXT, "operator": {"const": "In"}, "values": _several(_TEXT)})
_SELECTOR = {
    **_object(
        {},
        {"matchLabels": {"type": "object", "additionalProperties": _TEXT}, "matchExpressions": _several(_EXPRESSION)},
    ),
    "minProperties": 1,
}
_ENDPOINT = _object(
    {"port": _TEXT, "authorization": _object({"credentials": _object({"name": _TEXT, "key": _TEXT})})},
    {"interval": _DURATION, "relabelings": _several(_object({"targetLabel": _TEXT, "replacement": _TEXT}))},
)

SCHEMAS: dict[tuple[str, str], Schema] = {
    (_KEDA, "ScaledObject"): _resource(_KEDA, "ScaledObject", _SCALED_OBJECT),
    (_KEDA, "TriggerAuthentication"): _resource(_KEDA, "TriggerAuthentication", _AUTHENTICATION),
    (_OPERATOR, "ServiceMonitor"): _resource(
        _OPERATOR, "ServiceMonitor", _object({"selector": _SELECTOR, "endpoints": _several(_ENDPOINT)})
    ),
    (_OPERATOR, "PodMonitor"): _resource(
        _OPERATOR, "PodMonitor", _object({"selector": _SELECTOR, "podMetricsEndpoints": _several(_ENDPOINT)})
    ),
}
