{{/* The name of the Secret of a reference. */}}
{{- define "sentiment.secretName" -}}
{{- default (include "sentiment.name" .root) .reference.name -}}
{{- end -}}

{{/* An environment variable from a Secret. */}}
{{- define "sentiment.secretEnv" -}}
- name: {{ .variable }}
  valueFrom:
    secretKeyRef:
      name: {{ include "sentiment.secretName" . }}
      key: {{ .reference.key }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end -}}

{{- define "sentiment.migrationDatabaseUrl" -}}
{{- toYaml (ternary .Values.secrets.migrationDatabaseUrl .Values.secrets.databaseUrl (ne .Values.secrets.migrationDatabaseUrl.key "")) -}}
{{- end -}}

{{/*
A checksum of what Secrets hold, so that `helm upgrade` rolls the pods that read them. The uid is a salt: who
can see a pod cannot try passwords against it. Empty where there is no cluster to ask.
*/}}
{{- define "sentiment.secretChecksum" -}}
{{- $text := "" -}}
{{- range .references -}}
{{- $name := include "sentiment.secretName" (dict "root" $.root "reference" .) -}}
{{- $secret := lookup "v1" "Secret" $.root.Release.Namespace $name -}}
{{- if $secret -}}
{{- $text = printf "%s %s %s" $text $secret.metadata.uid (dig .key "" (default dict $secret.data)) -}}
{{- end -}}
{{- end -}}
{{- sha256sum $text -}}
{{- end -}}
