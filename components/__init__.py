"""The steps of the pipelines: one thin container component a stage, which calls the `unmask` command.

There is no code in a step: what a person types, a container runs. Every component hands the executor input on, through
which the command finds list inputs and reports metrics to the Kubeflow Pipelines UI.
"""
