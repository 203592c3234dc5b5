{{- define "medsearch.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 44 | trimSuffix "-" -}}
{{- end }}

{{/* At most 44 characters: a CronJob's name has 52, and the longest ending here is eight. */}}
{{- define "medsearch.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" -}}
{{- else if contains (include "medsearch.name" .) .Release.Name -}}
{{- .Release.Name | trunc 44 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "medsearch.name" .) | trunc 44 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* What a selector may hold: it can't be changed later. Takes {root, component}. */}}
{{- define "medsearch.selectorLabels" -}}
app.kubernetes.io/name: {{ include "medsearch.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Takes {root, component}. */}}
{{- define "medsearch.labels" -}}
{{ include "medsearch.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The labels of a pod, without the chart's version: a change of the chart alone shall not start pods anew. Takes {root, component}. */}}
{{- define "medsearch.podLabels" -}}
{{- $labels := omit (include "medsearch.labels" . | fromYaml) "helm.sh/chart" "app.kubernetes.io/managed-by" -}}
{{ toYaml (mergeOverwrite (deepCopy .root.Values.podLabels) $labels) }}
{{- end }}

{{/* The label that lets a pod of this namespace reach the API. */}}
{{- define "medsearch.clientLabel" -}}
{{ include "medsearch.fullname" . }}-client
{{- end }}

{{- define "medsearch.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "medsearch.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "medsearch.image" -}}
{{- $repository := required "image.repository is missing: no image is published yet, so build one with the project's Dockerfile, push it to your registry and name it" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default (printf "v%s" .Chart.AppVersion) .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{/* Bytes as a whole number, of 3Gi, 64Mi, 500M or a plain number: the program takes nothing else. */}}
{{- define "medsearch.bytes" -}}
{{- /* Helm reads numbers as floats, which would be written 3.2e+09. */ -}}
{{- $text := kindIs "string" . | ternary . (int64 . | toString) -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexReplaceAll "^[0-9]+" $text "" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if not (hasKey $units $unit) -}}
{{- fail (printf "%s is no number of bytes: write it as 512Mi or 3Gi" $text) -}}
{{- end -}}
{{- mul $number (get $units $unit | int64) -}}
{{- end }}

{{/* Replicas at least, whoever counts them. */}}
{{- define "medsearch.replicasMin" -}}
{{- if .Values.autoscaling.enabled -}}{{ .Values.autoscaling.minReplicas }}{{- else -}}{{ .Values.replicaCount }}{{- end -}}
{{- end }}

{{/* Alone on a folder that it writes to: no second one may run beside it. */}}
{{- define "medsearch.single" -}}
{{- if and .Values.archive.existingClaim (not .Values.readOnly) -}}true{{- end -}}
{{- end }}

{{- define "medsearch.hasCache" -}}
{{- if and .Values.cache.enabled (not .Values.archive.existingClaim) -}}true{{- end -}}
{{- end }}

{{/* What fits no schema: values that contradict each other. */}}
{{- define "medsearch.validate" -}}
{{- $replicas := include "medsearch.replicasMin" . | int -}}
{{- if and .Values.archive.existingClaim (not (hasPrefix "file://" .Values.archive.url)) -}}
{{- fail "archive.existingClaim holds a folder: archive.url must be file:///archive" -}}
{{- end -}}
{{- if and (hasPrefix "file://" .Values.archive.url) (not .Values.archive.existingClaim) -}}
{{- fail "archive.url is a folder, which ends with its pod: give archive.existingClaim, or a bucket" -}}
{{- end -}}
{{- if and (include "medsearch.single" .) (or .Values.autoscaling.enabled (gt $replicas 1)) -}}
{{- fail "archive.existingClaim is one folder: set replicaCount to 1 and leave autoscaling off, or set readOnly" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- fail "autoscaling.maxReplicas is less than autoscaling.minReplicas" -}}
{{- end -}}
{{- if and .Values.apiKey.existingSecret (eq .Values.keysFile.existingSecret .Values.apiKey.existingSecret) (eq .Values.keysFile.key .Values.apiKey.key) -}}
{{- fail "keysFile is what `medsearch key` writes, and not the API key: it needs a key of its own in the Secret" -}}
{{- end -}}
{{- if .Values.cluster.enabled -}}
{{- if .Values.archive.existingClaim -}}
{{- fail "cluster.enabled needs an archive in a bucket" -}}
{{- end -}}
{{- if lt $replicas (int .Values.cluster.replicationFactor) -}}
{{- fail (printf "cluster.replicationFactor is %d, but there are only %d replicas" (int .Values.cluster.replicationFactor) $replicas) -}}
{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (ge (int .Values.podDisruptionBudget.maxUnavailable) (int .Values.cluster.replicationFactor)) -}}
{{- fail "podDisruptionBudget.maxUnavailable must be less than cluster.replicationFactor: else the drain of nodes takes a shard away" -}}
{{- end -}}
{{- if and .Values.apiKey.existingSecret (eq .Values.cluster.innerKey.existingSecret .Values.apiKey.existingSecret) (eq .Values.cluster.innerKey.key .Values.apiKey.key) -}}
{{- fail "cluster.innerKey must be another credential than apiKey" -}}
{{- end -}}
{{- else if .Values.cluster.innerTls.existingSecret -}}
{{- fail "cluster.innerTls needs cluster.enabled: a replica without peers has no inner port" -}}
{{- else if .Values.cluster.indexBytesMax -}}
{{- fail "cluster.indexBytesMax needs cluster.enabled: a replica without peers has to hold everything" -}}
{{- end -}}
{{- if .Values.cluster.indexBytesMax -}}
{{- with (.Values.resources.limits).memory -}}
{{- if ge (include "medsearch.bytes" $.Values.cluster.indexBytesMax | int64) (include "medsearch.bytes" . | int64) -}}
{{- fail "cluster.indexBytesMax must be less than resources.limits.memory: model, pictures and requests need memory too" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (include "medsearch.hasCache" .) (eq .Values.cache.medium "Memory") -}}
{{- with (.Values.resources.limits).memory -}}
{{- if ge (include "medsearch.bytes" $.Values.cache.sizeLimit | int64) (include "medsearch.bytes" . | int64) -}}
{{- fail "cache.sizeLimit in memory must be less than resources.limits.memory" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.ingress.enabled -}}
{{- if not .Values.ingress.hosts -}}
{{- fail "ingress.enabled needs ingress.hosts" -}}
{{- end -}}
{{- if not (or .Values.ingress.tls .Values.ingress.tlsElsewhere) -}}
{{- fail "ingress.enabled needs ingress.tls: requests carry the API key (set ingress.tlsElsewhere where TLS ends before or in the controller)" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs" -}}
{{- end -}}
{{- with .Values.oidc -}}
{{- if and .issuer (not (and .audience .roles)) -}}
{{- fail "oidc.issuer needs oidc.audience and oidc.roles: which tokens are for this server, and what they permit" -}}
{{- end -}}
{{- if and .client.id (not .issuer) -}}
{{- fail "oidc.client.id needs oidc.issuer" -}}
{{- end -}}
{{- if and .client.existingSecret (not .client.id) -}}
{{- fail "oidc.client.existingSecret needs oidc.client.id" -}}
{{- end -}}
{{- if and .client.id (not $.Values.publicUrl) -}}
{{- fail "oidc.client.id needs publicUrl: the issuer sends people back there" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.audit.existingClaim (eq .Values.audit.existingClaim .Values.archive.existingClaim) -}}
{{- fail "audit.existingClaim must be another claim than archive.existingClaim: who can write to the archive shall not reach the lines" -}}
{{- end -}}
{{- if .Values.networkPolicy.enabled -}}
{{- if and .Values.oidc.issuer (not .Values.networkPolicy.issuer) -}}
{{- fail "networkPolicy.issuer is empty, so no key of oidc.issuer gets here: name its address and port there" -}}
{{- end -}}
{{- if and .Values.pacs.existingSecret (not .Values.networkPolicy.pacs) -}}
{{- fail "networkPolicy.pacs is empty, so no PACS can be asked: name their addresses and ports there" -}}
{{- end -}}
{{- if and (or .Values.ingress.enabled .Values.httpRoute.enabled) (not .Values.networkPolicy.clients) -}}
{{- fail "networkPolicy.clients is empty, so no ingress or gateway gets through: name its namespace there" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.networkPolicy.monitoring) -}}
{{- fail "networkPolicy.monitoring is empty, so Prometheus gets no metrics: name its namespace there" -}}
{{- end -}}
{{- if and .Values.traces.endpoint (not .Values.networkPolicy.collector) -}}
{{- fail "networkPolicy.collector is empty, so no span reaches traces.endpoint: name the collector's namespace and port there" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.bulkIndex.enabled (not .Values.bulkIndex.existingClaim) -}}
{{- fail "bulkIndex.enabled needs bulkIndex.existingClaim" -}}
{{- end -}}
{{- end }}

{{/* Kubernetes' profile "restricted". */}}
{{- define "medsearch.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.runAs.user }}
runAsUser: {{ int64 . }}
{{- end }}
{{- with .Values.runAs.group }}
runAsGroup: {{ int64 . }}
# Secrets and caches belong to root: this lets the group in.
fsGroup: {{ int64 . }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "medsearch.securityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What every pod of the program has. */}}
{{- define "medsearch.podSpec" -}}
serviceAccountName: {{ include "medsearch.serviceAccountName" . }}
# Nothing here talks to Kubernetes. A cloud's workload identity mounts a token of its own.
automountServiceAccountToken: false
# Services would appear as variables such as MEDSEARCH_PORT, among the program's own settings.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "medsearch.podSecurityContext" . | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where a job may run: a claim that one node holds at a time is where the server is. */}}
{{- define "medsearch.jobAffinity" -}}
{{- if .Values.archive.existingClaim -}}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "medsearch.selectorLabels" (dict "root" . "component" "server") | nindent 12 }}
{{- else if .Values.affinity -}}
affinity:
  {{- toYaml .Values.affinity | nindent 2 }}
{{- end -}}
{{- end }}

{{/* Which archive, and its secret. Takes {root, extraEnv}: later variables win. */}}
{{- define "medsearch.archiveEnv" -}}
- name: MEDSEARCH_ARCHIVE
  value: {{ required "archive.url is missing: s3://BUCKET/PREFIX, gs://… or az://…" .root.Values.archive.url | quote }}
- name: MEDSEARCH_SECRET_FILE
  value: /etc/medsearch/archive/secret
- name: MEDSEARCH_LOG
  value: {{ .root.Values.server.log | quote }}
{{- with .root.Values.server.exactRowsMax }}
- name: MEDSEARCH_EXACT_ROWS_MAX
  value: {{ int64 . | quote }}
{{- end }}
{{- with .root.Values.server.decodeThreads }}
- name: MEDSEARCH_DECODE_THREADS
  value: {{ int64 . | quote }}
{{- end }}
{{- if .root.Values.caBundle.configMap }}
- name: SSL_CERT_FILE
  value: /etc/medsearch/ca/ca.crt
{{- end }}
{{- if .root.Values.googleCredentials.existingSecret }}
- name: GOOGLE_APPLICATION_CREDENTIALS
  value: /etc/medsearch/google/credentials.json
{{- end }}
{{- with concat .root.Values.extraEnv (default (list) .extraEnv) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "medsearch.archiveMounts" -}}
- name: archive-secret
  mountPath: /etc/medsearch/archive
  readOnly: true
{{- if .Values.caBundle.configMap }}
- name: ca
  mountPath: /etc/medsearch/ca
  readOnly: true
{{- end }}
{{- if .Values.googleCredentials.existingSecret }}
- name: google
  mountPath: /etc/medsearch/google
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "medsearch.archiveVolumes" -}}
- name: archive-secret
  secret:
    secretName: {{ required "archive.secret.existingSecret is missing: the Secret with the archive's secret" .Values.archive.secret.existingSecret }}
    # Never readable by others; the kubelet adds the group's right to read.
    defaultMode: 0400
    items:
      - key: {{ .Values.archive.secret.key }}
        path: secret
{{- if .Values.caBundle.configMap }}
- name: ca
  configMap:
    name: {{ .Values.caBundle.configMap }}
    items:
      - key: {{ .Values.caBundle.key }}
        path: ca.crt
{{- end }}
{{- if .Values.googleCredentials.existingSecret }}
- name: google
  secret:
    secretName: {{ .Values.googleCredentials.existingSecret }}
    defaultMode: 0400
    items:
      - key: {{ .Values.googleCredentials.key }}
        path: credentials.json
{{- end }}
# In memory: nothing that a library may put there touches a disk.
- name: tmp
  emptyDir:
    medium: Memory
    sizeLimit: 64Mi
{{- end }}

{{- define "medsearch.apiKeyVolume" -}}
- name: api-key
  secret:
    secretName: {{ required "apiKey.existingSecret is missing: the Secret with the API key" .Values.apiKey.existingSecret }}
    defaultMode: 0400
    items:
      - key: {{ .Values.apiKey.key }}
        path: key
{{- end }}
