# mypy: allow-untyped-decorators
"""Step `check-gpu`: the node that training will use has the GPUs that it promises."""

from kfp import dsl
from kfp.dsl import Markdown, Output

from components.images import TRAINING


@dsl.container_component
def check_gpu(need_gpu: bool, report: Output[Markdown]) -> dsl.ContainerSpec:
    """Check that a container on the training nodes sees a GPU that PyTorch can use.

    Args:
        need_gpu: Fail if there is none; otherwise only say so.
        report: What was found.
    """
    return dsl.ContainerSpec(
        image=TRAINING,
        command=["unmask", "check-gpu"],
        args=[
            "--need-gpu",
            need_gpu,
            "--out-report",
            report.path,
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
