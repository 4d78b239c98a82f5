{{/* What runs. Where the examples are on, their saga is what there is to run, unless another is named. */}}
{{- define "kasaga.app.target" -}}
{{- if .Values.app.target -}}
{{ .Values.app.target }}
{{- else if .Values.examples.enabled -}}
examples.sagas:app
{{- else -}}
{{ fail "app.target is empty: name the App that the orchestrators run, such as --set app.target=shop.sagas:app" }}
{{- end -}}
{{- end }}

{{- define "kasaga.app.namespace" -}}
{{- if .Values.app.namespace -}}
{{ .Values.app.namespace }}
{{- else if .Values.examples.enabled -}}
orders
{{- else -}}
{{ fail "app.namespace is empty: name the App's namespace, the first argument of App(…), such as --set app.namespace=shop" }}
{{- end -}}
{{- end }}

{{- define "kasaga.app.image" -}}
{{- $repository := .Values.image.repository -}}
{{- if and (not $repository) .Values.examples.enabled -}}
{{- $repository = "kasaga-examples-sagas" -}}
{{- end -}}
{{- if not $repository -}}
{{ fail "image.repository is empty: name an image with your App, made from the image kasaga" }}
{{- end -}}
{{ include "kasaga.image" (dict "root" . "image" .Values.image "repository" $repository) }}
{{- end }}

{{- define "kasaga.databaseSecret" -}}
{{ required "database.existingSecret.name is empty: name a Secret of yours that holds the database's address" .Values.database.existingSecret.name }}
{{- end }}
