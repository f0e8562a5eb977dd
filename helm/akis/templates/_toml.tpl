{{/* A value in TOML, on one line. Numbers come as fractions from Helm, and all of ours are whole. */}}
{{- define "akis.toml.value" -}}
{{- if kindIs "string" . -}}{{ toRawJson . }}
{{- else if kindIs "bool" . -}}{{ . }}
{{- else if kindIs "slice" . -}}
[{{ range $i, $item := . }}{{ if $i }}, {{ end }}{{ include "akis.toml.value" $item }}{{ end }}]
{{- else if kindIs "map" . -}}
{ {{- $first := true -}}
{{- range $key, $item := . }}{{ if not $first }},{{ end }} {{ toRawJson $key }} = {{ include "akis.toml.value" $item }}
{{- $first = false -}}{{- end }} }
{{- else -}}{{ int64 . }}
{{- end -}}
{{- end -}}

{{/* Lines of TOML for the keys that have a value: empty ones are left out, so that the binary's default holds. */}}
{{- define "akis.toml.keys" -}}
{{- range $key, $value := . -}}
{{- if or (has (kindOf $value) (list "bool" "int" "int64" "float64")) $value -}}
{{ $key }} = {{ include "akis.toml.value" $value }}
{{ end -}}
{{- end -}}
{{- end -}}
