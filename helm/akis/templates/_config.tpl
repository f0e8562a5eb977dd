{{/* What akis.toml of every role begins with. */}}
{{- define "akis.config.common" -}}
log_format = {{ include "akis.toml.value" .Values.log_format }}

{{ if .Values.redis.url -}}
[redis]
url = {{ include "akis.toml.value" .Values.redis.url }}

{{ end -}}
[log]
{{ include "akis.toml.keys" .Values.log }}
[admin]
listen = "0.0.0.0:9090"
{{ if .Values.telemetry.otlp }}
[telemetry]
{{ include "akis.toml.keys" .Values.telemetry }}
{{- end -}}
{{- end -}}

{{/* akis.toml of the gateways. */}}
{{- define "akis.config.gateway" -}}
{{- $gateway := .Values.gateway -}}
{{- $limits := deepCopy $gateway.limits -}}
{{- /* Proxies put their addresses in the place of the clients', and nodes that send clients on to others do. */ -}}
{{- $byNodes := and (ne $gateway.service.type "ClusterIP") (ne $gateway.service.externalTrafficPolicy "Local") -}}
{{- if and (or .Values.ingress.enabled .Values.httpRoute.enabled $byNodes) (not (or $limits.connections_per_address $gateway.trusted_proxies)) -}}
{{- $_ := set $limits "connections_per_address" (default 20000 $limits.connections) -}}
{{- end -}}
{{ include "akis.config.common" . }}
[gateway]
listen = "0.0.0.0:8080"
{{ include "akis.toml.keys" (pick $gateway "origins" "patterns" "trusted_proxies" "drain" "coalesce" "coalesce_max" "heartbeat") }}
[gateway.limits]
{{ include "akis.toml.keys" $limits }}
[auth]
{{ include "akis.toml.keys" (pick .Values.auth "issuer" "audience") }}
{{- range .Values.auth.keys }}
[[auth.keys]]
{{ include "akis.toml.keys" (pick . "id" "alg" "jwks") }}
{{- if .pem }}pem = {{ printf "/etc/akis/%s.pem" .id | include "akis.toml.value" }}
{{ end }}
{{- end }}
{{- range $name, $role := .Values.auth.roles }}
[auth.roles.{{ toRawJson $name }}]
{{ include "akis.toml.keys" $role }}
{{- end }}
{{- end -}}

{{/* akis.toml of a venue's normalizers. Takes a list: the root, the venue's name. */}}
{{- define "akis.config.normalizer" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{ include "akis.config.common" $root }}
[venues.{{ $name }}]
{{ include "akis.toml.keys" (omit (index $root.Values.venues $name) "enabled" "passwordSecret") }}
{{- end -}}
