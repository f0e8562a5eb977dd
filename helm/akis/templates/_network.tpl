{{/* Not empty where a text is an IP address. */}}
{{- define "akis.isIp" -}}
{{- $byte := "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])" -}}
{{- $v4 := printf "(%s[.]){3}%s" $byte $byte -}}
{{- $group := "[0-9A-Fa-f]{1,4}" -}}
{{- /* Version 6 may end as version 4 is written, which stands for two of its eight groups. */ -}}
{{- $groups := regexReplaceAll (printf "(^|:)%s$" $v4) . "${1}0:0" -}}
{{- $isFull := regexMatch (printf "^(%s:){7}%s$" $group $group) $groups -}}
{{- $isShort := regexMatch (printf "^(%s(:%s)*)?::(%s(:%s)*)?$" $group $group $group $group) $groups -}}
{{- if or (regexMatch (printf "^%s$" $v4) .) $isFull (and $isShort (lt (regexFindAll $group $groups -1 | len) 8)) -}}yes{{- end -}}
{{- end -}}

{{/* What is wrong with host and port of an address, which may be a URL; empty where nothing is. */}}
{{- define "akis.wrongAddress" -}}
{{- $authority := regexReplaceAll "^([A-Za-z-]+://)?([^/?#]*@)?" . "" | regexFind "^[^/?#]*" -}}
{{- $port := regexFind ":[0-9]*$" $authority -}}
{{- $host := trimSuffix $port $authority -}}
{{- $isNumeric := regexMatch "^\\[|(^|[.])[0-9]+[.]?$" $host -}}
{{- if not $host -}}has no host
{{- else if or (gt (len $port) 6) (gt (trimPrefix ":" $port | int) 65535) -}}has a port above 65535
{{- else if or (regexMatch "\\s" $host) (and $isNumeric (not (include "akis.isIp" (trimAll "[]" $host)))) -}}has a host that is neither a name nor an address
{{- end -}}
{{- end -}}

{{/* The ports in addresses, as a NetworkPolicy has them: explicit ones, or those of the scheme. Takes a list of addresses. */}}
{{- define "akis.ports" -}}
{{- $ports := list -}}
{{- range . -}}
{{- $port := regexFind ":[0-9]+(/|\\?|$)" (regexReplaceAll "^[a-z-]+://" . "") | trimPrefix ":" | trimSuffix "/" | trimSuffix "?" -}}
{{- if $port -}}{{- $ports = append $ports $port -}}
{{- else if regexMatch "^(https|wss)://" . -}}{{- $ports = append $ports "443" -}}
{{- else -}}{{- $ports = append $ports "80" -}}
{{- end -}}
{{- end -}}
{{- range $ports | uniq | sortAlpha }}
- port: {{ . }}
{{- end }}
{{- end -}}

{{/*
What is wrong with a URL of Redis, a mistake a line. The URL is not repeated: it may hold passwords. Takes a list: the root, what
to call the URL, the URL.
*/}}
{{- define "akis.wrongRedis" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $url := index . 2 -}}
{{- $wrong := list -}}
{{- $hosts := list (regexReplaceAll "^[a-z-]+://([^/?]*@)?" $url "" | regexFind "^[^/?]*") -}}
{{- with include "akis.wrongAddress" $url -}}{{- $wrong = append $wrong (printf "%s %s" $name .) -}}{{- end -}}
{{- range regexFindAll "[?&]node=[^&#]*" $url -1 -}}
{{- /* A colon may be encoded here, and is in what akis check-config prints. */ -}}
{{- $node := regexReplaceAll "%3[Aa]" (regexReplaceAll "^.node=" . "") ":" -}}
{{- $hosts = append $hosts $node -}}
{{- if not (regexMatch ":[0-9]+$" $node) -}}
{{- $wrong = append $wrong (printf "%s has a node without a port" $name) -}}
{{- else if regexMatch ":.*:" $node -}}
{{- $wrong = append $wrong (printf "%s: a node has an address of version 6, which only the first one may have" $name) -}}
{{- end -}}
{{- with include "akis.wrongAddress" $node -}}{{- $wrong = append $wrong (printf "%s: a node %s" $name .) -}}{{- end -}}
{{- end -}}
{{- if and (regexMatch "^rediss?-sentinel:" $url) (not (regexMatch "[?&]sentinelServiceName=[^&#]" $url)) -}}
{{- $wrong = append $wrong (printf "%s lacks ?sentinelServiceName=, the name that the Sentinels watch the log under" $name) -}}
{{- end -}}
{{- $otherwise := contains "-sentinel:" $url | ternary "26379" "6379" -}}
{{- $closed := list -}}
{{- if $root.Values.networkPolicy.enabled -}}
{{- range $hosts -}}
{{- $port := regexFind ":[0-9]+$" . | trimPrefix ":" | default $otherwise -}}
{{- if not (has $port (toStrings $root.Values.redis.ports)) -}}{{ $closed = append $closed $port }}{{ end -}}
{{- end -}}
{{- end -}}
{{- with $closed | uniq | join ", " -}}
{{- $wrong = append $wrong (printf "%s leads to port %s, which network policies close: name it in redis.ports" $name .) -}}
{{- end -}}
{{- join "\n" $wrong -}}
{{- end -}}

{{/*
Names, wherever the cluster has them: at the port of DNS, and at any port of the pods that serve it in most clusters. A policy
sees the pod's own port, which is 5353 on OpenShift and 8053 or 1053 elsewhere, though that of the Service is 53.
*/}}
{{- define "akis.dns" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
      podSelector:
        matchLabels:
          k8s-app: kube-dns
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: openshift-dns
{{- end -}}

{{/* What every pod that runs akis may reach: names, Redis, the collector. */}}
{{- define "akis.egress" -}}
{{ include "akis.dns" . }}
{{- if .Values.redis.bundled.enabled }}
- to:
    - podSelector:
        matchLabels:
          {{- include "akis.selector" (list . "redis") | nindent 10 }}
  ports:
    - port: 6379
{{- else }}
- ports:
    {{- range .Values.redis.ports }}
    - port: {{ . }}
    {{- end }}
  {{- with .Values.networkPolicy.redis }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .Values.telemetry.otlp }}
- ports:
    {{- include "akis.ports" (list .) | nindent 4 }}
  {{- with $.Values.networkPolicy.outside }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Who may read metrics. */}}
{{- define "akis.monitoringIngress" -}}
{{- with .Values.networkPolicy.monitoring }}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - port: admin
{{- end }}
{{- end -}}
