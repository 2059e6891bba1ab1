#checkov:skip=CKV_DOCKER_2:Kubernetes has its own probes and ignores HEALTHCHECK
#checkov:skip=CKV_DOCKER_7:the base image is an argument, and its default has a digest
# All stages use the same base image, because a virtual environment refers to its Python. The digest is that of the list
# for all architectures. The default is a stage, because Dependabot updates images only where FROM names them.
ARG BASE=base

FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea AS base

FROM ${BASE} AS build

# The environment has no pip: the service does not need it, and an attacker could use it.
RUN python -m venv --without-pip /opt/venv
COPY requirements/service.txt /tmp/service.txt
# Only wheels, because a slim base image has no compiler. The secret "pip" may contain a pip configuration, such as a
# mirror with a password; it does not become part of the image.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
      --only-binary :all: --require-hashes --no-deps -r /tmp/service.txt
# The service uses two of these files; their licence must stay. The rest (20 MB) is an editor and source maps.
RUN find /opt/venv/lib/python3*/site-packages/swagger_ui/static -type f \
      ! -name swagger-ui-bundle.js ! -name swagger-ui.css ! -name LICENSE -delete

COPY svc /app/svc
COPY sql /app/sql
# Compiles here, because the service may not write to its folders. Hash-based, because copying can change file times.
# The file modes must not depend on those of the checkout.
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib /app \
    && chmod -R a+rX,go-w /opt/venv /app

# The image for load tests (k8s/load), built with --target load. It is no part of the service's image, the last stage.
FROM ${BASE} AS build-load

RUN python -m venv --without-pip /opt/venv
COPY requirements/load.txt /tmp/load.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
      --only-binary :all: --require-hashes --no-deps -r /tmp/load.txt

COPY ops/__init__.py /app/ops/
COPY ops/common /app/ops/common
COPY ops/load /app/ops/load
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib /app \
    && chmod -R a+rX,go-w /opt/venv /app

FROM ${BASE} AS load

COPY --from=build-load /opt/venv /opt/venv
COPY --from=build-load /app /app
WORKDIR /app
USER 10001:10001

# Load tests write only to one folder, which the orchestrator mounts: the results, and Matplotlib's font cache.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/app/.local/matplotlib
ENTRYPOINT ["python", "-m", "ops.load"]
CMD ["--help"]

ARG BUILD=development
LABEL org.opencontainers.image.title="clients-api-load" \
      org.opencontainers.image.description="Load tests of the clients API of olimac.link." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${BUILD}"

FROM ${BASE}

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
# A number, so that an orchestrator can verify that it is not root. Root owns all files; the service only reads them.
USER 10001:10001

# The service writes no files, so the root file system can be read-only. Unbuffered output loses no log line.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8080
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "svc"]
CMD ["serve"]

# Last, because it changes with every commit. /version returns it.
ARG BUILD=development
ENV BUILD=${BUILD}
LABEL org.opencontainers.image.title="clients-api" \
      org.opencontainers.image.description="The clients API of olimac.link: list, add and look up clients." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${BUILD}"
