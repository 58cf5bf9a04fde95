# The image of the steps that run no network of ours:
#   docker build -f images/pipeline.Dockerfile -t unmask/pipeline:0.1.0 .
# It also runs the MLflow server and the job that puts a pipeline on its schedule. No torch; weights are never inside.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
# Where packages are not fetched from PyPI: docker build --build-arg PIP_INDEX_URL=… --build-arg UV_DEFAULT_INDEX=…
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
WORKDIR /build
COPY requirements/build.lock requirements/pipeline.lock requirements/models.lock requirements/
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.lock
# uv, as in `make setup`: pip refuses a package that the face networks' runtime asks for. Compiled here, because a
# container with a read-only root would compile anew at every start.
ENV PATH=/opt/build/bin:$PATH UV_NO_CACHE=1 UV_PYTHON=/opt/unmask/bin/python UV_COMPILE_BYTECODE=1
RUN python3 -m venv --without-pip /opt/unmask \
 && uv pip install --require-hashes -r requirements/pipeline.lock \
 && uv pip install --require-hashes --no-deps -r requirements/models.lock \
 && for packages in /opt/unmask/lib/python3.*/site-packages; do echo /opt/package > "$packages/unmask.pth"; done

FROM dependencies AS package
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY components components
COPY pipelines pipelines
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheel . \
 && uv pip install --no-deps --target /opt/package wheel/*.whl

FROM ${BASE}
RUN useradd --uid 1000 --create-home unmask
# Two layers: a change of the code moves the small one only.
COPY --from=dependencies /opt/unmask /opt/unmask
COPY --from=package /opt/package /opt/package
ENV PATH=/opt/package/bin:/opt/unmask/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib
ARG BASE
ARG VERSION=0.1.0
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="unmask pipeline" \
      org.opencontainers.image.description="Steps of unmask that run on CPU, its MLflow server and its command for Kubeflow" \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${COMMIT} \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.base.name=${BASE}
ENV UNMASK_GIT_COMMIT=${COMMIT}
USER 1000
WORKDIR /home/unmask
CMD ["unmask", "--help"]
