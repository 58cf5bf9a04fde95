"""The wiring of the steps to Kubeflow pipelines, and their compiled form.

`python -m pipelines.compile` writes ``compiled/*.yaml``, which is what a cluster and the local run execute.
"""
