{{/*
What the names of objects begin with: the release's name, with the chart's unless it holds it already. 42 characters leave room
for "-normalizer-binancef": a Service and a label have 63 at most.
*/}}
{{- define "akis.name" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) -}}
{{- default $name .Values.fullnameOverride | trunc 42 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that choose the pods of a component. Takes a list: the root, the component. */}}
{{- define "akis.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object of a component. Takes a list: the root, the component. */}}
{{- define "akis.labels" -}}
{{- $root := index . 0 -}}
{{ include "akis.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{- define "akis.serviceAccount" -}}
{{- default (include "akis.name" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "akis.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The venues that are enabled, separated by commas. */}}
{{- define "akis.venues" -}}
{{- $names := list -}}
{{- range $name, $venue := .Values.venues -}}
{{- if $venue.enabled -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/* Name and key of the Secret with auth.secret; empty when tokens are checked by public keys alone. */}}
{{- define "akis.authSecret" -}}
{{- if .Values.auth.secret.create -}}
name: {{ include "akis.name" . }}-auth
key: secret
{{- else if .Values.auth.secret.name -}}
name: {{ .Values.auth.secret.name | quote }}
key: {{ .Values.auth.secret.key | quote }}
{{- end -}}
{{- end -}}

{{/*
Name and key of the Secret with a role's URL of Redis; empty when the URL stands in the configuration.
Takes a list: the root, gateway or normalizer.
*/}}
{{- define "akis.redisSecret" -}}
{{- $root := index . 0 -}}
{{- $secret := $root.Values.redis.urlSecret -}}
{{- if $root.Values.redis.bundled.enabled -}}
name: {{ include "akis.name" $root }}-redis
key: url
{{- else if $secret.name -}}
name: {{ $secret.name | quote }}
key: {{ ternary (default $secret.key $secret.normalizerKey) $secret.key (eq (index . 1) "normalizer") | quote }}
{{- end -}}
{{- end -}}

{{/* How long a gateway takes to go away in order, in seconds: it waits for balancers, and sends its clients away. */}}
{{- define "akis.leaving" -}}
{{- add (include "akis.seconds" .Values.gateway.leave) (include "akis.seconds" .Values.gateway.drain) -}}
{{- end -}}

{{/* Number of gateways where no autoscaler decides. */}}
{{- define "akis.gateways" -}}
{{- if kindIs "invalid" .Values.gateway.replicas -}}2{{- else -}}{{ int .Values.gateway.replicas }}{{- end -}}
{{- end -}}
