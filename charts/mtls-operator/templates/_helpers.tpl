{{- define "mtls-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "mtls-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "mtls-operator.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "mtls-operator.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "mtls-operator.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "mtls-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mtls-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the ServiceAccount to use, or set serviceAccount.create" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "mtls-operator.selector" -}}
app.kubernetes.io/name: {{ include "mtls-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of the Pod of `helm test`. No Service, PodDisruptionBudget or monitor of the operator may select it. */}}
{{- define "mtls-operator.testSelector" -}}
app.kubernetes.io/name: {{ include "mtls-operator.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mtls-operator.labels" -}}
{{ include "mtls-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The image: a registry in the values replaces the registry of the repository. */}}
{{- define "mtls-operator.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with default .Values.image.registry (.Values.global).imageRegistry -}}
{{- $parts := splitList "/" $repository -}}
{{- if and (gt (len $parts) 1) (regexMatch "[.:]|^localhost$" (first $parts)) -}}
{{- $repository = rest $parts | join "/" -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* The image pull Secrets, as a JSON list of objects. */}}
{{- define "mtls-operator.pullSecrets" -}}
{{- $all := list -}}
{{- range concat (default list (.Values.global).imagePullSecrets) .Values.imagePullSecrets -}}
{{- $all = append $all (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- $all | uniq | toJson -}}
{{- end -}}

{{/* Scrape settings of a ServiceMonitor or PodMonitor. */}}
{{- define "mtls-operator.scrape" -}}
interval: {{ .interval }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .authorization }}
authorization:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The namespaces to watch, as a JSON list; an empty list means all. */}}
{{- define "mtls-operator.watched" -}}
{{- if eq .Values.watch.scope "Cluster" -}}
{{- if .Values.watch.namespaces -}}
{{- fail "watch.namespaces: with watch.scope Cluster leave it empty, or set watch.scope to Namespaces" -}}
{{- end -}}
[]
{{- else -}}
{{- default (list (include "mtls-operator.namespace" .)) .Values.watch.namespaces | uniq | toJson -}}
{{- end -}}
{{- end -}}

{{/* Fails if a value is missing that only the user knows. */}}
{{- define "mtls-operator.check" -}}
{{- if and (eq .Values.watch.scope "Namespaces") (not .Values.clusterId) -}}
{{- fail "clusterId: name this cluster, as in --set clusterId=prod-eu; it stands in every ownership tag in AWS and must never change" -}}
{{- end -}}
{{- if not .Values.policy.mode -}}
{{- fail "policy.mode: choose Rules (and write policy.rules), or AllowAll, with which every user who may create an MtlsDomain may use all of the operator's permissions in AWS" -}}
{{- end -}}
{{- if and .Values.policy.rules (eq .Values.policy.mode "AllowAll") -}}
{{- fail "policy.rules: they count only with policy.mode Rules" -}}
{{- end -}}
{{- end -}}
