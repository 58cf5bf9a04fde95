# The image of the pipeline's steps: docker build -f images/pipeline.Dockerfile -t unmask/pipeline:0.1.0 .
# It holds the command with everything that any step needs; kfp is not among it. Weights are never inside.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
RUN python3 -m venv /opt/unmask
COPY requirements/training.lock requirements/models.lock requirements/
RUN /opt/unmask/bin/pip install --no-cache-dir --require-hashes -r requirements/training.lock \
 && /opt/unmask/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements/models.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY components components
COPY pipelines pipelines
RUN /opt/unmask/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${BASE}
COPY --from=build /opt/unmask /opt/unmask
RUN useradd --uid 1000 --create-home unmask
ENV PATH=/opt/unmask/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
WORKDIR /home/unmask
CMD ["unmask", "--help"]
