{{/* What values.schema.json cannot say. Each ends the render with a sentence that says what to change. */}}
{{- define "sentiment.checks" -}}

{{- $parts := dict "api" .Values.api -}}
{{- range $version, $_ := .Values.runner.versions -}}
{{- $_ := set $parts (printf "runner (%s)" $version) (include "sentiment.runner" (dict "root" $ "version" $version) | fromYaml) -}}
{{- end -}}
{{- range $part, $values := $parts -}}
{{- with $values.autoscaling -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "%s: autoscaling.minReplicas (%d) is more than autoscaling.maxReplicas (%d)." $part (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if and (eq .by "queue") (eq $.Values.monitoring.monitor "none") (not $.Values.monitoring.job) -}}
{{- fail (printf "%s: autoscaling.by=queue needs metrics. Set monitoring.monitor to pod or service, or monitoring.job to the job label under which your Prometheus has them." $part) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $pods := int .Values.api.replicas -}}
{{- if ne .Values.api.autoscaling.by "none" -}}{{- $pods = int .Values.api.autoscaling.maxReplicas -}}{{- end -}}
{{- $workers := int (default 1 .Values.config.API_WORKERS) -}}
{{- $pool := int (default 5 .Values.config.DATABASE_POOL_SIZE) -}}
{{- $need := add (mul $pods (add (mul $workers $pool) 2)) 2 -}}
{{- $left := sub (int .Values.database.maxConnections) (int .Values.database.otherConnections) -}}
{{- if gt $need $left -}}
{{- fail (printf "%d API pods, each with %d processes of DATABASE_POOL_SIZE=%d and 2 connections of the log, and 2 connections of the migration need %d connections; database.maxConnections=%d leaves %d for them. Lower api.autoscaling.maxReplicas or config.DATABASE_POOL_SIZE, raise max_connections of PostgreSQL and database.maxConnections, or put a PgBouncer in between and set database.maxConnections to its max_client_conn." $pods $workers $pool $need (int .Values.database.maxConnections) $left) -}}
{{- end -}}

{{- if and (or .Values.ingress.enabled .Values.gateway.enabled) (not .Values.config.FORWARDED_ALLOW_IPS) -}}
{{- fail "Behind an ingress or a gateway, set config.FORWARDED_ALLOW_IPS to the network of its pods. Without it all clients share the limits of the proxy." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled needs at least one name in ingress.hosts." -}}
{{- end -}}
{{- if .Values.gateway.enabled -}}
{{- if not .Values.gateway.hosts -}}
{{- fail "gateway.enabled needs at least one name in gateway.hosts." -}}
{{- end -}}
{{- if and (not .Values.gateway.parentRefs) (not .Values.gateway.className) -}}
{{- fail "gateway.enabled needs gateway.parentRefs, or gateway.className for a Gateway of the release's own." -}}
{{- end -}}
{{- end -}}

{{- if and .Values.config.PATH_PREFIX .Values.ingress.enabled (not (hasPrefix .Values.ingress.path .Values.config.PATH_PREFIX)) -}}
{{- fail (printf "config.PATH_PREFIX=%s is not below ingress.path=%s, so no request would have it." .Values.config.PATH_PREFIX .Values.ingress.path) -}}
{{- end -}}
{{- end -}}
