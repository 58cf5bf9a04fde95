"""The Open Inference Protocol (KServe v2) over the same analysis, for clients and gateways that speak it."""

from __future__ import annotations

import asyncio
import base64
import binascii
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from unmask.serving.analyst import Upload
from unmask.serving.answers import Analysis
from unmask.serving.problems import RefusedError
from unmask.serving.services import Caller, Services, Shared
from unmask.serving.uploads import deleted_after

router = APIRouter(prefix="/v2", tags=["kserve"])

MODEL = "unmask-detector"
INPUT = "media"


class Tensor(BaseModel):
    """A tensor of the protocol. Further fields that the protocol allows are passed over."""

    model_config = ConfigDict(extra="ignore", strict=True)
    name: str
    shape: list[Annotated[int, Field(ge=0)]]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class InferenceRequest(BaseModel):
    """A request of the protocol: one input ``media`` of datatype BYTES, base64 of one file an element."""

    model_config = ConfigDict(extra="ignore", strict=True)
    id: str | None = None
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    parameters: dict[str, Any] | None = None


class InferenceResponse(BaseModel):
    """An answer of the protocol."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Tensor]


class TensorMetadata(BaseModel):
    """An input or output of the model."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What the model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    """The process runs."""

    live: Literal[True] = True


class ReadyState(BaseModel):
    """The model can answer."""

    ready: Literal[True] = True


EXAMPLE = {"inputs": [{"name": INPUT, "shape": [1], "datatype": "BYTES", "data": ["iVBORw0KGgoAAAANSUhEUgAAAAE="]}]}
_OUTPUTS = (("probability", "FP64"), ("verdict", "BYTES"), ("reason", "BYTES"), ("details", "BYTES"))


@router.get("/health/live", summary="Whether the process runs", operation_id="v2_live")
async def live() -> Live:
    """Of the protocol."""
    return Live()


@router.get("/health/ready", summary="Whether the model can answer", operation_id="v2_ready")
async def ready(shared: Shared) -> ReadyState:
    """503 while the server starts or stops."""
    return ReadyState()


@router.get("/models/{name}", summary="What the model takes and gives", operation_id="v2_model")
async def metadata(name: str, shared: Shared) -> ModelMetadata:
    """Of the protocol."""
    _check_name(name)
    version = shared.models.champion.version
    return ModelMetadata(
        name=MODEL,
        versions=[version.name] if version else [],
        platform="unmask_onnxruntime",
        inputs=[TensorMetadata(name=INPUT, datatype="BYTES", shape=[-1])],
        outputs=[TensorMetadata(name=output, datatype=datatype, shape=[-1]) for output, datatype in _OUTPUTS],
    )


@router.get("/models/{name}/ready", summary="Whether the model can answer", operation_id="v2_model_ready")
async def model_ready(name: str, shared: Shared) -> ReadyState:
    """Of the protocol."""
    _check_name(name)
    return ReadyState()


@router.post("/models/{name}/infer", summary="Judge files", operation_id="v2_infer")
async def infer(
    name: str,
    body: Annotated[InferenceRequest, Body(openapi_examples={"picture": {"value": EXAMPLE}})],
    request: Request,
    shared: Shared,
    caller: Caller,
) -> InferenceResponse:
    """Each element of `media` is a whole file in base64; `details` holds the whole answer as JSON.

    A file that cannot be judged has probability null and the verdict `not scored`, with the reason beside it.
    """
    _check_name(name)
    files = _files(body.inputs[0], shared.config.max_batch_files)
    results = await asyncio.gather(*(_judge(content, shared, caller, request) for content in files))
    version = shared.models.champion.version
    values = {
        "probability": [each["probability"] for each in results],
        "verdict": [each["verdict"] for each in results],
        "reason": [each["reason"] for each in results],
        "details": [each["details"] for each in results],
    }
    return InferenceResponse(
        model_name=MODEL,
        model_version=version.name if version else "",
        id=body.id or request.scope["state"]["request_id"],
        outputs=[
            Tensor(name=output, shape=[len(files)], datatype=datatype, data=values[output])
            for output, datatype in _OUTPUTS
        ],
    )


def _check_name(name: str) -> None:
    if name != MODEL:
        raise RefusedError(HTTPStatus.NOT_FOUND, "unknown_model", "There is no such model here.", f"Ask for {MODEL}.")


def _files(tensor: Tensor, most: int) -> list[bytes]:
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    if tensor.name != INPUT or tensor.datatype != "BYTES":
        raise RefusedError(status, "wrong_input", f"The input must be {INPUT}, BYTES.", "Send files in base64.")
    if not 1 <= len(tensor.data) <= most or tensor.shape not in ([len(tensor.data)], [len(tensor.data), 1]):
        raise RefusedError(status, "wrong_shape", f"shape and data must agree, with 1 to {most} elements.")
    try:
        return [base64.b64decode(element, validate=True) for element in tensor.data]
    except (binascii.Error, TypeError, ValueError) as error:
        raise RefusedError(status, "no_base64", "An element of data is not base64.") from error


async def _judge(content: bytes, shared: Services, caller: str, request: Request) -> dict[str, Any]:
    path = shared.scratch.new()
    address = request.client.host if request.client is not None else ""
    with deleted_after([path]):
        await asyncio.to_thread(path.write_bytes, content)
        try:
            upload = Upload(path, INPUT, caller, f"{caller}@{address}")
            analysis: Analysis = await shared.analyst.analyse(upload, shared.analyst.direct)
        except RefusedError as error:
            problem = error.problem(request.scope["state"]["request_id"])
            reason = f"{problem.code}: {problem.detail}"
            return {
                "probability": None,
                "verdict": "not scored",
                "reason": reason,
                "details": problem.model_dump_json(),
            }
    return {
        "probability": analysis.probability,
        "verdict": analysis.verdict,
        "reason": analysis.reason or "",
        "details": analysis.model_dump_json(),
    }
