{{/* A StatefulSet's name, followed by a hash, is a label of its pods, so it has 52 characters at most. */}}
{{- define "vitalstream.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "vitalstream.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "vitalstream.labels" -}}
{{ include "vitalstream.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "vitalstream.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The file that --config reads. A JSON text, number or boolean is the same in TOML. */}}
{{- define "vitalstream.settings" -}}
{{- range $name, $value := omit .Values.settings "kafka" }}
{{ $name }} = {{ $value | toJson }}
{{- end }}
{{- if .Values.secretName }}
secrets_dir = "/etc/vitalstream/secrets"
{{- end }}

[kafka]
{{- range $name, $value := .Values.settings.kafka }}
{{ $name | toJson }} = {{ $value | toJson }}
{{- end }}
{{ end -}}
