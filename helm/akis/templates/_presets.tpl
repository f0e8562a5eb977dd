{{/*
Annotations by which an Ingress controller leaves WebSockets and event streams open. The gateway sends a heartbeat every
`gateway.heartbeat` (5 s), so time-outs for silence need not be long; what ends connections that are in use must be off.
Replicas that go away answer 503 to newcomers, which another replica takes.
*/}}
{{- define "akis.ingressPreset" -}}
{{- if eq .Values.ingress.preset "nginx" -}}
nginx.ingress.kubernetes.io/proxy-read-timeout: "120"
nginx.ingress.kubernetes.io/proxy-send-timeout: "120"
nginx.ingress.kubernetes.io/proxy-buffering: "off"
nginx.ingress.kubernetes.io/proxy-next-upstream: error timeout http_503
{{- with .Values.gateway.limits.publish_bytes }}
{{- /* nginx's own limit is 1 MiB, as the gateway's is unless set. */}}
nginx.ingress.kubernetes.io/proxy-body-size: {{ include "akis.bytes" . | float64 | int64 | quote }}
{{- end }}
{{- else if eq .Values.ingress.preset "haproxy" -}}
haproxy.org/timeout-server: 120s
haproxy.org/load-balance: leastconn
{{- else if eq .Values.ingress.preset "envoy" -}}
{{- /* Contour takes paths of the Ingress here, not of requests. */}}
projectcontour.io/websocket-routes: /
projectcontour.io/response-timeout: infinity
projectcontour.io/retry-on: connect-failure
projectcontour.io/num-retries: "2"
{{- if .Values.ingress.tlsSecretName }}
{{- /* Contour goes on to serve the host in plain text otherwise, and tokens with it. */}}
ingress.kubernetes.io/force-ssl-redirect: "true"
{{- end }}
{{- else if eq .Values.ingress.preset "alb" -}}
alb.ingress.kubernetes.io/target-type: ip
alb.ingress.kubernetes.io/load-balancer-attributes: idle_timeout.timeout_seconds=120
{{- /* AWS takes an hour at most, and gateway.drain may be one. */}}
alb.ingress.kubernetes.io/target-group-attributes: {{ printf "deregistration_delay.timeout_seconds=%d,load_balancing.algorithm.type=least_outstanding_requests" (include "akis.leaving" . | int64 | min 3600) }}
alb.ingress.kubernetes.io/healthcheck-protocol: HTTP
{{- /* Nothing is there: 404 without a token, which counts as no refusal. Whoever cannot serve yet answers 503. */}}
alb.ingress.kubernetes.io/healthcheck-path: /healthz
alb.ingress.kubernetes.io/success-codes: 200-499
{{- end -}}
{{- end -}}
