"""The only room that knows SDKs: Kubeflow Pipelines, MLflow, object stores, container engines."""
