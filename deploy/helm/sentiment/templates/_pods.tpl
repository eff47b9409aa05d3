{{/* What every pod of the release has in common. */}}
{{- define "sentiment.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1034
runAsGroup: 1034
fsGroup: 1034
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "sentiment.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "sentiment.probes" -}}
# The process answers.
livenessProbe:
  httpGet: { path: /livez, port: http }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
# It can do its part: answer from a model that is loaded, and record predictions.
readinessProbe:
  httpGet: { path: /readyz, port: http }
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
startupProbe:
  httpGet: { path: /livez, port: http }
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 60
{{- end -}}

{{/* Where pods of one part run; .values are the part's, .name is its label. */}}
{{- define "sentiment.placement" -}}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: { app.kubernetes.io/name: {{ $.name }} }
  {{- end }}
{{- end -}}

{{- define "sentiment.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Annotations that change, and so roll the pods, when what they read at their start has changed. */}}
{{- define "sentiment.podAnnotations" -}}
checksum/config: {{ include "sentiment.config" .root | sha256sum }}
checksum/secrets: {{ include "sentiment.secretChecksum" . }}
{{- with .root.Values.secrets.rolloutToken }}
sentiment/rollout-token: {{ . | quote }}
{{- end }}
{{- with .values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The CA of PostgreSQL, where there is one of its own. */}}
{{- define "sentiment.databaseCaEnv" -}}
{{- if .Values.database.ca.secret }}
- { name: PGSSLROOTCERT, value: /etc/sentiment/postgresql/ca.crt }
{{- end }}
{{- end -}}
{{- define "sentiment.databaseCaMount" -}}
{{- if .Values.database.ca.secret }}
- { name: postgresql-ca, mountPath: /etc/sentiment/postgresql, readOnly: true }
{{- end }}
{{- end -}}
{{- define "sentiment.databaseCaVolume" -}}
{{- with .Values.database.ca }}
{{- if .secret }}
- name: postgresql-ca
  secret: { secretName: {{ .secret }}, items: [{ key: {{ .key }}, path: ca.crt }] }
{{- end }}
{{- end }}
{{- end -}}
