{{/* Takes a list: the root, the venue's name. */}}
{{- define "akis.normalizer.configmap" -}}
{{- $root := index . 0 -}}
{{- $name := printf "normalizer-%s" (index . 1) -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "akis.name" $root }}-{{ $name }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "akis.labels" (list $root $name) | nindent 4 }}
data:
  akis.toml: |
    {{- include "akis.config.normalizer" . | nindent 4 }}
{{- end -}}
