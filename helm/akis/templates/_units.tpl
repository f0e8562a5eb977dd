{{/* A duration such as 250ms, 20s, 15m or 1h in milliseconds. */}}
{{- define "akis.milliseconds" -}}
{{- $factors := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 -}}
{{- mul (regexFind "^[0-9]+" .) (index $factors (regexFind "[a-z]+$" .)) -}}
{{- end -}}

{{/* The same in whole seconds, rounded up. */}}
{{- define "akis.seconds" -}}
{{- div (add (include "akis.milliseconds" .) 999) 1000 -}}
{{- end -}}

{{/* A size such as 64KiB, or a quantity of Kubernetes such as 1.5Gi, in bytes. A fraction, because 999999999999GiB fits no integer. */}}
{{- define "akis.bytes" -}}
{{- if kindIs "string" . -}}
{{- $factors := dict "" 1 "B" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 -}}
{{- mulf (regexFind "^[0-9.]+" .) (index $factors (regexFind "[A-Za-z]*$" .)) -}}
{{- else -}}{{ . }}
{{- end -}}
{{- end -}}
