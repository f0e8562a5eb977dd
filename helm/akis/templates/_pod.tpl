{{/* What the pods of all components have in common. Takes a list: the root, the component. */}}
{{- define "akis.pod" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ include "akis.serviceAccount" $root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
Spreads the pods of a component, those of one version among themselves, over the nodes that they may run on. A tainted or
cordoned node would count as one with no pod, and DoNotSchedule would leave pods Pending.
Takes a list: the root, the component.
*/}}
{{- define "akis.spread" -}}
{{- $root := index . 0 -}}
{{- $selector := include "akis.selector" . -}}
{{- range $key, $otherwise := dict "kubernetes.io/hostname" $root.Values.topologySpread.nodes "topology.kubernetes.io/zone" $root.Values.topologySpread.zones }}
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: {{ $otherwise }}
  nodeTaintsPolicy: Honor
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- $selector | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Security of a pod. Takes the user that it runs as. */}}
{{- define "akis.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Security of a container: it may do nothing and write nowhere. */}}
{{- define "akis.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Resources, without those that are empty. */}}
{{- define "akis.resources" -}}
{{- range $name, $amounts := . }}
{{ $name }}:
  {{- range $resource, $amount := $amounts }}
  {{- if $amount }}
  {{ $resource }}: {{ $amount | quote }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where Redis is, as environment of a container. Takes a list: the root, gateway or normalizer. */}}
{{- define "akis.redisEnv" -}}
{{- $ca := (index . 0).Values.redis.ca -}}
{{- include "akis.secretEnv" (list "AKIS_REDIS__URL" (include "akis.redisSecret" . | fromYaml)) }}
{{- if or $ca.secretName $ca.configMapName }}
# Authorities that are believed beside those of the image.
- name: SSL_CERT_DIR
  value: /etc/akis-redis-ca
{{- end }}
{{- end -}}

{{/* A variable from a Secret. Takes a list: the variable, a dictionary with name and key. */}}
{{- define "akis.secretEnv" -}}
{{- with index . 1 }}
{{- if .name }}
- name: {{ index $ 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ .name | quote }}
      key: {{ .key | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What a container that runs akis logs. */}}
{{- define "akis.logEnv" -}}
{{- with .Values.logLevel }}
- name: RUST_LOG
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "akis.gateway.env" -}}
{{- include "akis.logEnv" . }}
{{- include "akis.secretEnv" (list "AKIS_AUTH__SECRET" (include "akis.authSecret" . | fromYaml)) }}
{{- include "akis.redisEnv" (list . "gateway") }}
{{- end -}}

{{/* Takes a list: the root, the venue's name. */}}
{{- define "akis.normalizer.env" -}}
{{- $root := index . 0 -}}
{{- $venue := index . 1 -}}
{{- include "akis.logEnv" $root }}
{{- include "akis.redisEnv" (list $root "normalizer") }}
{{- include "akis.secretEnv" (list (printf "AKIS_VENUES__%s__PASSWORD" (upper $venue)) (index $root.Values.venues $venue).passwordSecret) }}
{{- end -}}

{{/* Volumes of a container that runs akis. Takes a list: the root, the name of the ConfigMap. */}}
{{- define "akis.volumes" -}}
{{- $ca := (index . 0).Values.redis.ca -}}
- name: config
  configMap:
    name: {{ index . 1 }}
{{- if $ca.secretName }}
- name: redis-ca
  secret:
    secretName: {{ $ca.secretName | quote }}
{{- else if $ca.configMapName }}
- name: redis-ca
  configMap:
    name: {{ $ca.configMapName | quote }}
{{- end }}
{{- end -}}

{{- define "akis.volumeMounts" -}}
- name: config
  mountPath: /etc/akis
  readOnly: true
{{- if or .Values.redis.ca.secretName .Values.redis.ca.configMapName }}
- name: redis-ca
  mountPath: /etc/akis-redis-ca
  readOnly: true
{{- end }}
{{- end -}}

{{/* Probes of a container that runs akis. Starting may wait for Redis, and liveness never looks at Redis. */}}
{{- define "akis.probes" -}}
livenessProbe:
  httpGet:
    path: /livez
    port: admin
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}
