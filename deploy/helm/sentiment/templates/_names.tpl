{{/* The name of the release's parts. Only a short one leaves room for the names of pods. */}}
{{- define "sentiment.name" -}}
{{- $name := default .Release.Name .Values.fullnameOverride -}}
{{- if gt (len $name) 40 -}}
{{- fail (printf "The name %s is longer than 40 characters. Choose another release name, or set fullnameOverride." $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* The labels of an object; .name is its part. No pod has these, so a new chart rolls none. */}}
{{- define "sentiment.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: sentiment
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "sentiment.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default (printf "v%s" $.Chart.AppVersion) .tag }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "sentiment.serviceAccount" -}}
{{- default (include "sentiment.name" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* The job label of the release's metrics, by which its rules and autoscalers select them. */}}
{{- define "sentiment.job" -}}
{{- default (printf "%s/%s" .Release.Namespace (include "sentiment.name" .)) .Values.monitoring.job -}}
{{- end -}}

{{/* A scalar as text. Helm reads numbers as float64, and would print 1.073741824e+09. */}}
{{- define "sentiment.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ printf "%.0f" . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* The values of a runner's version, as YAML. */}}
{{- define "sentiment.runner" -}}
{{- $common := omit .root.Values.runner "versions" -}}
{{- toYaml (mustMergeOverwrite (deepCopy $common) (deepCopy (index .root.Values.runner.versions .version))) -}}
{{- end -}}
