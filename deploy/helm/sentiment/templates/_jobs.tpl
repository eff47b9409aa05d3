{{/*
The pod of a Job that needs the database: .container is its name, .args what it runs, .claim a claim of a spool, or "".
It uses no object of the release, which may not be there yet, or no more. One with a spool has the settings of the API,
which is how it knows the sinks and LOG_HASH_KEY; if there are sinks, it has the API's role too.
*/}}
{{- define "sentiment.databaseJobPod" -}}
{{- $root := .root -}}
metadata:
  labels:
    app.kubernetes.io/name: {{ include "sentiment.name" $root }}-{{ .container }}
    app.kubernetes.io/part-of: sentiment
spec:
  # Its pod, and so its log, stays when it has failed.
  restartPolicy: Never
  {{- $hasSinks := or $root.Values.config.LOG_PARQUET_URL $root.Values.config.LOG_EVENTS_URL }}
  {{- if and .claim $hasSinks }}
  serviceAccountName: {{ include "sentiment.serviceAccount" $root }}
  {{- else if $root.Values.migration.serviceAccountName }}
  serviceAccountName: {{ $root.Values.migration.serviceAccountName }}
  {{- end }}
  automountServiceAccountToken: false
  {{- include "sentiment.pullSecrets" $root | nindent 2 }}
  {{- with $root.Values.api.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $root.Values.api.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.api.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext: {{- include "sentiment.podSecurity" $root | nindent 4 }}
  containers:
    - name: {{ .container }}
      image: {{ include "sentiment.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ toJson .args }}
      workingDir: /home/bentoml/bento/src
      env:
        {{- include "sentiment.secretEnv" (dict "root" $root "variable" "DATABASE_URL" "reference" .databaseUrl) | nindent 8 }}
        {{- include "sentiment.databaseCaEnv" $root | nindent 8 }}
        {{- if .claim }}
        {{- range $setting, $value := $root.Values.config }}
        - { name: {{ $setting }}, value: {{ include "sentiment.text" $value | quote }} }
        {{- end }}
        - { name: DATA_FOLDER, value: /data }
        {{- with $root.Values.api.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- end }}
      securityContext: {{- include "sentiment.containerSecurity" $root | nindent 8 }}
      resources: {{- toYaml $root.Values.migration.resources | nindent 8 }}
      volumeMounts:
        - { name: tmp, mountPath: /tmp }
        {{- if .claim }}
        - { name: data, mountPath: /data }
        {{- end }}
        {{- include "sentiment.databaseCaMount" $root | nindent 8 }}
  volumes:
    - { name: tmp, emptyDir: { sizeLimit: 64Mi } }
    {{- if .claim }}
    - { name: data, persistentVolumeClaim: { claimName: {{ .claim }} } }
    {{- end }}
    {{- include "sentiment.databaseCaVolume" $root | nindent 4 }}
{{- end -}}
